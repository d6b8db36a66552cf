//! The `hookbridge` program.

fn main() {}
