//! Second half of the line.

pub mod guard;
pub mod http;
pub mod request;
