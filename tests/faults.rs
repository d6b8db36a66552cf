//! Nothing is lost and nothing is retried twice, whatever breaks: a load of numbered events to
//! subscribers of all kinds, a fault, and an account of every delivery.
//!
//! Each fault is a function that takes how often it is made. `make test` runs the quick selection;
//! the whole suite is what is ignored there: `make faults`. `FAULTS_SEED` repeats a run.

mod account;
mod cast;
mod chance;
mod collector;
mod ground;
mod ledger;
mod load;
mod own_user;
mod process;
mod report;
mod stage;

mod alarms;
mod bridge_killed;
mod connections;
mod consumers;
mod home_broker;
mod leaders;
mod rights;
