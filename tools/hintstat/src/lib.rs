// SPDX-License-Identifier: GPL-2.0

//! What page_hinting does in this guest, for people and for programs.

pub mod cli;
pub mod exit;
pub mod explain;
pub mod flush;
pub mod live;
pub mod manual;
pub mod metrics;
pub mod show;
pub mod source;
