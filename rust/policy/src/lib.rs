// SPDX-License-Identifier: GPL-2.0

//! The decisions of the page_hinting kernel module, as a crate of the host.
//!
//! The module includes `levels.rs`, `machine.rs` and `policy.rs` as they are. This crate exists to
//! test the same code where it can be tested best, and for the simulator.

#![no_std]

pub mod levels;
pub mod machine;
mod policy;

pub use policy::*;
