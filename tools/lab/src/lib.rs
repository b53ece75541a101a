// SPDX-License-Identifier: GPL-2.0

//! Boots guests under QEMU, runs things in them, and measures from the host the
//! memory they give back.
//!
//! What the guest has to say comes over a virtio port ([`port`]); its console
//! goes to a log that is kept and shown when something goes wrong, and nothing
//! is read out of it.

pub mod bench;
pub mod cli;
pub mod demo;
pub mod hinting;
pub mod initramfs;
pub mod instructions;
pub mod interrupt;
pub mod ktap;
pub mod pair;
pub mod plot;
pub mod port;
pub mod qemu;
pub mod returned;
pub mod rss;
pub mod scenario;
pub mod shell;
pub mod skips;
pub mod tally;
pub mod test;
pub mod versions;
pub mod watch;
