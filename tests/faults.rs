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
mod letters;
mod load;
mod process;
mod report;
mod stage;

mod bad_events;
mod bridge_killed;
mod home_broker;
mod home_subscribers;
mod subscribers_broker;
