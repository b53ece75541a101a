// SPDX-License-Identifier: GPL-2.0

//! The decisions of the page_hinting kernel module, as a crate of the host.
//!
//! The module includes `policy.rs` and `pacing.rs` as they are; this crate exists to test the same
//! code where it can be tested best.

#![no_std]

pub mod pacing;
mod policy;

pub use policy::*;
