//! hookbridge consumes domain events from RabbitMQ and delivers the documented webhooks to
//! subscribers, over HTTP and AMQP, with one counted retry and no silent loss.
//!
//! `ARCHITECTURE.md` is the map; the line that one event walks is
//! [`intake`] → [`broker`] → [`deliver`], built and stopped by [`bridge`].

pub mod admin;
pub mod archive;
pub mod bridge;
pub mod broker;
pub mod certificates;
pub mod cli;
pub mod courses;
pub mod deliver;
pub mod delivery;
pub mod event;
pub mod intake;
pub mod lack;
pub mod outcomes;
pub mod pem;
pub mod registry;
pub mod replay;
pub mod settings;
pub mod store;
pub mod strays;
pub mod subscriber;
pub mod systemd;
pub mod telemetry;
pub mod webhook;
