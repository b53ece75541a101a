// SPDX-License-Identifier: GPL-2.0

//! Free blocks on their way to the host and back, as owned values.
//!
//! [`Isolated`] is submitted or dropped, [`InFlight`] is reaped or left to the kernel,
//! [`Reaped`] is returned. None can be copied or returned twice.
//!
//! A request is the ring of its blocks' struct pages, known by the first of them.

use core::ptr::NonNull;

use kernel::{
    bindings::page,
    error::to_result,
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    },
};

use crate::{
    ffi,
    thread::InThread,
    trace,
    zone::{
        Zone,
        MAX_PAGE_ORDER, //
    },
};

/// Blocks that are on no free list, because this value owns them.
///
/// They are handed to the host by [`Isolated::submit`], or go back to the free lists as they were
/// when the value is dropped.
///
/// # Invariants
///
/// `request` is the ring of `blocks` blocks of `pages` pages, which nobody else has; [`None`] if
/// there are none. `blocks` is at most `max_blocks`, and that at most what a request may have.
pub(crate) struct Isolated {
    request: Option<NonNull<page>>,
    blocks: u32,
    max_blocks: u32,
    pages: u64,
}

impl Isolated {
    /// No blocks yet, and never more than `max_blocks`.
    pub(crate) fn new(max_blocks: u32, _: &InThread) -> Self {
        // INVARIANT: There are no blocks.
        Self {
            request: None,
            blocks: 0,
            max_blocks: max_blocks.min(ffi::PAGE_HINTING_REQUEST_BLOCKS),
            pages: 0,
        }
    }

    /// Takes unhinted blocks of a zone's free area, the coldest first.
    ///
    /// Takes no more than `max_pages`, and no more than the zone can spare. Returns the pages that
    /// were taken.
    pub(crate) fn take(&mut self, zone: Zone, order: u32, max_pages: u64) -> u64 {
        if order > MAX_PAGE_ORDER {
            return 0;
        }
        let max_blocks = u32::try_from(max_pages >> order)
            .unwrap_or(u32::MAX)
            .min(self.max_blocks.saturating_sub(self.blocks));
        let mut request = self.request.map_or(core::ptr::null_mut(), NonNull::as_ptr);

        // SAFETY: `request` is null or a ring of blocks that are this value's, by the invariants.
        // The zone is valid, and there is such an order.
        let blocks =
            unsafe { ffi::page_hinting_take(&mut request, zone.as_ptr(), order, max_blocks) };
        let pages = u64::from(blocks) << order;

        // INVARIANT: The blocks taken, `max_blocks` at most, are in the ring now.
        self.request = NonNull::new(request);
        self.blocks = self.blocks.saturating_add(blocks);
        self.pages = self.pages.saturating_add(pages);
        if blocks != 0 {
            // CAST: They are pages of this machine.
            // SAFETY: The zone is valid, and so is the request, which has blocks.
            unsafe { trace::page_hinting_take(zone.as_ptr(), order, request, pages as usize) };
        }
        pages
    }

    /// The size of the blocks, in pages.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether it has as many blocks as it may.
    pub(crate) fn is_full(&self) -> bool {
        self.blocks >= self.max_blocks
    }

    /// Hands the blocks to the host, without waiting for it.
    ///
    /// On an error they are returned to the free lists: `ENODEV` if there is no device, `ENOSPC`
    /// if its queue is full, `EBUSY` if somebody waits for what is out, or an error of the device.
    /// `EINVAL` if there are no blocks.
    pub(crate) fn submit(mut self) -> Result<InFlight> {
        let request = self.request.ok_or(EINVAL)?;

        // SAFETY: The blocks are this value's, and no more than a request may have, by the
        // invariants.
        let result = unsafe { ffi::page_hinting_submit(request.as_ptr()) };
        let entries = u32::try_from(result).unwrap_or(0);

        // SAFETY: It is a struct page, whoever has the block by now.
        unsafe {
            trace::page_hinting_submit(request.as_ptr(), entries, self.blocks, result.min(0))
        };
        to_result(result)?;
        // INVARIANT: The host has the blocks, so there is nothing left to drop.
        self.request = None;
        self.blocks = 0;
        Ok(InFlight {
            request,
            pages: core::mem::take(&mut self.pages),
            entries,
            submitted: Instant::now(),
        })
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        if let Some(request) = self.request {
            // SAFETY: The blocks are this value's, by the invariants, and it is gone.
            unsafe { give_back(request, false) };
        }
    }
}

/// Blocks that the host has.
///
/// If the value is dropped, the kernel returns them, untagged, when the host has answered.
pub(crate) struct InFlight {
    request: NonNull<page>,
    /// Their size.
    pub(crate) pages: u64,
    /// How many entries of the device's queue they use.
    pub(crate) entries: u32,
    submitted: Instant<Monotonic>,
}

// SAFETY: The pointer is only compared.
unsafe impl Send for InFlight {}

impl InFlight {
    /// For how long the host has had them, in nanoseconds.
    pub(crate) fn age_ns(&self) -> u64 {
        u64::try_from(self.submitted.elapsed().as_nanos()).unwrap_or(0)
    }
}

/// Blocks that the host does not have any more.
///
/// If the host has acknowledged them, they go back to the free lists when the value is dropped,
/// tagged Offline. If the device was reset, the kernel has returned them already, as they were.
pub(crate) struct Reaped {
    request: NonNull<page>,
    acked: bool,
}

impl Reaped {
    /// The next, if there is any.
    pub(crate) fn next(_: &InThread) -> Option<Self> {
        let mut acked = false;
        // SAFETY: `acked` is valid for writes.
        let request = NonNull::new(unsafe { ffi::page_hinting_reap(&mut acked) })?;

        Some(Self { request, acked })
    }

    /// Whether they are what was handed over then.
    pub(crate) fn is(&self, flight: &InFlight) -> bool {
        self.request == flight.request
    }

    /// Whether the host has acknowledged them.
    pub(crate) fn acked(&self) -> bool {
        self.acked
    }

    /// Reports to the tracepoint how long the host took to acknowledge them.
    pub(crate) fn trace_ack(&self, latency_ns: u64) {
        // SAFETY: The request is this value's.
        unsafe { trace::page_hinting_ack(self.request.as_ptr(), latency_ns) };
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        if self.acked {
            // SAFETY: The kernel has given the blocks to this value, which is gone.
            unsafe { give_back(self.request, true) };
        }
    }
}

/// Returns blocks to the free lists, tagged Offline if the host has acknowledged them.
///
/// # Safety
///
/// They must belong to the caller, and to nobody after the call.
unsafe fn give_back(request: NonNull<page>, acked: bool) {
    // SAFETY: By the safety requirement.
    let pages = unsafe { ffi::page_hinting_return(request.as_ptr(), acked) };

    // SAFETY: Only its number is computed, whoever has the block by now.
    unsafe { trace::page_hinting_return(request.as_ptr(), pages, acked) };
}
