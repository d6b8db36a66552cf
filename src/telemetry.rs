//! What the bridge tells about itself.

pub mod logs;
pub mod metrics;
pub mod notices;
pub mod status;
pub mod summary;
pub mod traces;
