//! The commands of the `hookbridge` program, one file for each.

pub mod demo;
