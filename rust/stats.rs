// SPDX-License-Identifier: GPL-2.0

//! Counters of the module's life.

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// What is counted. But for `rehints`, written by the thread alone; read by anybody.
pub(crate) struct Stats {
    /// Memory acknowledged by the host, in pages.
    pub(crate) hinted_pages: Atomic<u64>,
    /// Requests given to the device: each ends as an ack or as an error.
    pub(crate) requests: Atomic<u64>,
    /// Requests acknowledged.
    pub(crate) acks: Atomic<u64>,
    /// Requests that the device refused, or forgot when it was reset.
    pub(crate) errors: Atomic<u64>,
    /// Times that the host stopped answering.
    pub(crate) stalls: Atomic<u64>,
    /// Longest time between submission and return of a request, in microseconds.
    pub(crate) ack_us_max: Atomic<u64>,
    /// Times that the thread was woken and found something to hint.
    pub(crate) wakeups: Atomic<u64>,
    /// Times that all was to be hinted anew.
    pub(crate) rehints: Atomic<u64>,
}

impl Stats {
    pub(crate) const fn new() -> Self {
        Self {
            hinted_pages: Atomic::new(0),
            requests: Atomic::new(0),
            acks: Atomic::new(0),
            errors: Atomic::new(0),
            stalls: Atomic::new(0),
            ack_us_max: Atomic::new(0),
            wakeups: Atomic::new(0),
            rehints: Atomic::new(0),
        }
    }

    /// The host has acknowledged a request of so many pages.
    pub(crate) fn acked(&self, pages: u64, latency_ns: u64) {
        let us = latency_ns / 1000;

        self.acks.add(1u64, Relaxed);
        self.hinted_pages.add(pages, Relaxed);
        // No other writer, so nothing is lost between the two.
        if us > self.ack_us_max.load(Relaxed) {
            self.ack_us_max.store(us, Relaxed);
        }
    }
}
