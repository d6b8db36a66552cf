//! Every integration test, in one binary: one private RabbitMQ serves them all, and each works in
//! a virtual host of its own, so they run side by side.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "the lints know the test functions, not the helpers that they share"
)]

mod support;

mod admin_api;
mod admin_away;
mod admin_commands;
mod admin_doors;
mod admin_fuzz;
mod admin_secrets;
mod admin_subscribers;
mod alarm;
mod alerts;
mod archiving;
mod audience;
mod broker_tls;
mod checking;
mod cluster;
mod commands;
mod connecting;
mod dashboard;
mod declared_anew;
mod deleted_exchange;
mod demo;
mod deployment;
mod faults;
mod full_disk;
mod harness;
mod house;
mod intake_acks;
mod isolation;
mod limits;
mod outcomes_amqp;
mod outcomes_http;
mod payloads;
mod planted;
mod poison;
mod private_node;
mod publishing;
mod registry;
mod rejection;
mod reload;
mod replaying;
mod retry;
mod rights;
mod running;
mod secrets;
mod shortage;
mod store;
mod store_letters;
mod strays;
mod stuck_queue;
mod summed_up;
mod systemd;
mod topology;
mod traces;
mod watching;
