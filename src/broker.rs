//! How this product speaks AMQP: connections that come back, the topology, consumers, and
//! publishing that is mandatory and confirmed. It knows nothing of webhooks.

pub mod browsing;
pub mod connection;
pub mod consumer;
pub mod home;
pub mod message;
pub mod pool;
mod prefetch;
pub mod publisher;
pub mod publishers;
pub mod queues;
mod sieve;
pub mod topology;
