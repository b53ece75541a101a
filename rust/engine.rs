// SPDX-License-Identifier: GPL-2.0

//! What is out for hinting, and the device that has it.
//!
//! Only the thread submits and reaps. Others read the state, or ask for what is out to come back.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    },
};

use crate::{
    block::{
        InFlight,
        Isolated,
        Reaped, //
    },
    ffi,
    policy,
    stats::Stats,
    thread::{
        self,
        InThread, //
    },
    zone, //
};

/// Requests that the host may have at a time.
const REQUESTS: usize = ffi::PAGE_HINTING_REQUESTS as usize;

/// What the host has.
type Flights = [Option<InFlight>; REQUESTS];

/// The requests that the host has, and who wants them back.
#[pin_data]
pub(crate) struct Engine {
    #[pin]
    flights: Mutex<Flights>,
    started: Instant<Monotonic>,
    /// Until when nothing is to go out, in milliseconds since `started`.
    held_ms: Atomic<u64>,
    /// 1 if somebody has waited for the host in vain, and nothing has come back since; else 0, as
    /// the kernel crate of 6.18 has no atomic `bool`.
    silent: Atomic<u32>,
    /// The most that was out at a time, in pages.
    peak: Atomic<u64>,
}

/// The device and what it has.
pub(crate) struct State {
    device: ffi::page_hinting_device,
    /// Requests that the host has.
    pub(crate) in_flight: usize,
    /// Entries of the queue that they use.
    entries: u32,
    /// How long the host has had the oldest of them, in nanoseconds.
    pub(crate) oldest_ns: u64,
    /// Whether somebody waits for what is out, so that no more may go there.
    pub(crate) held: bool,
}

impl State {
    /// Whether there is a device.
    pub(crate) fn has_device(&self) -> bool {
        self.device.capacity != 0
    }

    /// Whether there is something to wait for, of the module before this one as well.
    pub(crate) fn is_busy(&self) -> bool {
        self.device.in_flight != 0
    }

    /// The lowest order that the device takes.
    pub(crate) fn min_order(&self) -> u32 {
        self.device.min_order
    }

    /// How many blocks the next request may have.
    pub(crate) fn room(&self) -> u32 {
        let capacity = self.device.capacity;

        if self.in_flight == REQUESTS {
            return 0;
        }
        policy::request_blocks(capacity, capacity.saturating_sub(self.entries))
    }
}

impl Engine {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            flights <- new_mutex!([const { None }; REQUESTS]),
            started: Instant::now(),
            held_ms: Atomic::new(0),
            silent: Atomic::new(0u32),
            // What the module before this one has left with the host.
            peak: Atomic::new(zone::isolated()),
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(0)
    }

    /// The state now.
    pub(crate) fn state(&self) -> State {
        let mut device = ffi::page_hinting_device::default();
        let flights = self.flights.lock();
        let (mut in_flight, mut entries, mut oldest_ns) = (0, 0, 0);

        for flight in flights.iter().flatten() {
            in_flight += 1;
            entries = flight.entries.saturating_add(entries);
            oldest_ns = oldest_ns.max(flight.age_ns());
        }
        // SAFETY: `device` is valid for writes.
        unsafe { ffi::page_hinting_get_device(&mut device) };
        drop(flights);
        if device.in_flight as usize > in_flight {
            // The module before this one has left it with the host, who knows when.
            oldest_ns = oldest_ns.max(self.now_ms().saturating_mul(1_000_000));
        }
        State {
            held: device.held || self.now_ms() < self.held_ms.load(Relaxed),
            device,
            in_flight,
            entries,
            oldest_ns,
        }
    }

    /// The most that was out at a time since the module was loaded, in pages.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    /// Returns what the host does not have any more to the free lists. False if there was nothing.
    pub(crate) fn reap(&self, stats: &Stats, token: &InThread) -> bool {
        // Held over both, so that nobody sees a difference between the two tables.
        let mut flights = self.flights.lock();
        let Some(reaped) = Reaped::next(token) else {
            return false;
        };
        let flight = flights
            .iter_mut()
            .find(|slot| slot.as_ref().is_some_and(|flight| reaped.is(flight)))
            .and_then(Option::take);

        drop(flights);
        // Else the module before this one has left it with the host.
        if let Some(flight) = flight {
            self.silent.store(0u32, Relaxed);
            if reaped.acked() {
                let latency_ns = flight.age_ns();

                reaped.trace_ack(latency_ns);
                stats.acked(flight.pages, latency_ns);
            } else {
                stats.errors.add(1u64, Relaxed);
            }
        }
        true
    }

    /// Notes that blocks were taken.
    pub(crate) fn taken(&self) {
        let isolated = zone::isolated();

        // The thread alone takes blocks.
        if isolated > self.peak() {
            self.peak.store(isolated, Relaxed);
        }
    }

    /// Hands blocks to the host: errors as of [`Isolated::submit`].
    pub(crate) fn submit(&self, isolated: Isolated) -> Result {
        let mut flights = self.flights.lock();
        let flight = isolated.submit()?;

        // There is one, as the kernel takes no more requests than that.
        if let Some(slot) = flights.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some(flight);
        }
        Ok(())
    }

    /// Before a task is killed, everything that is out and can be had comes back: what the host has
    /// acknowledged, what it acknowledges soon, and what was not submitted yet. Returns the pages.
    ///
    /// Waits for a bounded time, and not for a host that somebody has waited for in vain.
    pub(crate) fn out_of_memory(&self) -> u64 {
        let before = zone::isolated();
        let end_ms = self.now_ms().saturating_add(policy::OOM_WAIT_MS);

        if before == 0 {
            return 0;
        }
        let held_ms = self.now_ms().saturating_add(policy::OOM_HOLD_MS);
        self.held_ms.store(held_ms, Relaxed);
        thread::wake();
        loop {
            fsleep(Delta::from_millis(1));
            let freed = before.saturating_sub(zone::isolated());

            if freed == before {
                return freed;
            }
            if self.silent.load(Relaxed) != 0 || self.now_ms() >= end_ms {
                self.silent.store(u32::from(freed == 0), Relaxed);
                return freed;
            }
        }
    }
}

/// Has the next acknowledgment wake the thread. False if there is something to reap already.
pub(crate) fn arm(_: &InThread) -> bool {
    // SAFETY: No requirements but process context.
    unsafe { ffi::page_hinting_arm() }
}

/// Drops all Offline tags, so that all free memory is hinted anew.
pub(crate) fn forget() {
    // SAFETY: Any context but NMI.
    unsafe { ffi::page_hinting_forget() };
}
