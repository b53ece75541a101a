// SPDX-License-Identifier: GPL-2.0

//! Counters of the module's life.

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

use crate::{
    pages_to_kb,
    queue::Ack, //
};

/// What the thread counts. Written by the thread alone, read by anybody.
pub(crate) struct Stats {
    hinted_pages: Atomic<u64>,
    requests: Atomic<u64>,
    acks: Atomic<u64>,
    errors: Atomic<u64>,
    stalls: Atomic<u64>,
    ack_us_max: Atomic<u64>,
    wakeups: Atomic<u64>,
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
        }
    }

    /// The host has acknowledged requests.
    pub(crate) fn acked(&self, ack: &Ack) {
        let us = ack.latency_ns / 1000;

        if !ack.own {
            return;
        }
        self.acks.add(ack.requests, Relaxed);
        self.hinted_pages.add(ack.pages, Relaxed);
        // No other writer, so nothing is lost between the two.
        if us > self.ack_us_max.load(Relaxed) {
            self.ack_us_max.store(us, Relaxed);
        }
    }

    /// A request was given to the device, which took it or not.
    pub(crate) fn submitted(&self) {
        self.requests.add(1u64, Relaxed);
    }

    /// The device refused a request.
    pub(crate) fn failed(&self) {
        self.errors.add(1u64, Relaxed);
    }

    /// The host has stopped answering.
    pub(crate) fn stalled(&self) {
        self.stalls.add(1u64, Relaxed);
    }

    /// The thread was woken and found something to hint.
    pub(crate) fn woken(&self) {
        self.wakeups.add(1u64, Relaxed);
    }

    /// Memory acknowledged by the host, in KiB.
    pub(crate) fn hinted_kb(&self) -> u64 {
        pages_to_kb(self.hinted_pages.load(Relaxed))
    }

    /// Requests submitted: each ends as an ack or as an error.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Requests acknowledged.
    pub(crate) fn acks(&self) -> u64 {
        self.acks.load(Relaxed)
    }

    /// Requests that the device refused.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Relaxed)
    }

    /// Times that the host stopped answering.
    pub(crate) fn stalls(&self) -> u64 {
        self.stalls.load(Relaxed)
    }

    /// Longest time between submission and return of a request, in microseconds.
    pub(crate) fn ack_us_max(&self) -> u64 {
        self.ack_us_max.load(Relaxed)
    }

    /// Times that the thread was woken and found something to hint.
    pub(crate) fn wakeups(&self) -> u64 {
        self.wakeups.load(Relaxed)
    }
}
