//! `hookbridge demo`: the whole bridge in one command, on a private RabbitMQ of its own.

pub mod node;
