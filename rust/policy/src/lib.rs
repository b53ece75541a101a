// SPDX-License-Identifier: GPL-2.0

//! The decisions of the page_hinting kernel module, as a crate of the host.
//!
//! The module includes `policy.rs` as it is; this crate exists to test the same
//! code where it can be tested best.

#![no_std]

mod policy;

pub use policy::*;
