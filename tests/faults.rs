//! Nothing is lost and nothing is retried twice, whatever breaks: a load of numbered events to
//! subscribers of all kinds, a fault, and an account of every delivery.
//!
//! Each fault is a function that takes how often it is made. `make test` runs the quick selection;
//! the whole suite is what is ignored there: `make faults`. `FAULTS_SEED` repeats a run.

#![expect(
    clippy::print_stdout,
    reason = "a run tells how it goes, and its figures"
)]

mod account;
mod alarms;
mod bad_events;
mod bridge_killed;
mod cast;
mod chance;
mod clock;
mod cluster;
mod collector;
mod connections;
mod consumers;
mod crash_loop;
mod full_load;
mod ground;
mod home_broker;
mod home_subscribers;
mod leaders;
mod ledger;
mod letters;
mod load;
mod network;
mod own_user;
mod process;
mod random;
mod report;
mod resources;
mod retry_delay;
mod rights;
mod stage;
mod subscribers_broker;
