//! What the tests stand on: the real broker, receivers that behave as badly as they are told to,
//! a line that can be cut, and waiting without hoping.

pub mod api;
pub mod bridge;
pub mod broker;
pub mod certificates;
pub mod client;
pub mod cluster;
pub mod eventually;
pub mod faults;
pub mod http;
pub mod lane;
pub mod line;
pub mod management;
pub mod picture;
pub mod planted;
pub mod postgres;
pub mod program;
pub mod prometheus;
pub mod proxy;
pub mod raw;
