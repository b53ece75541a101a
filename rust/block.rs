// SPDX-License-Identifier: GPL-2.0

//! Free blocks on their way to the host and back, as owned values.
//!
//! [`Isolated`] is submitted or dropped, [`InFlight`] is reaped or left to the kernel,
//! [`Reaped`] is returned. None can be copied or returned twice.

use core::ptr::NonNull;

use kernel::{
    bindings::page,
    error::to_result,
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    },
    types::Opaque, //
};

use crate::{
    ffi,
    thread::InThread,
    zone::{
        Zone,
        MAX_PAGE_ORDER, //
    },
};

/// Where isolated blocks are collected. It is made before the thread starts, which then needs no
/// memory any more.
pub(crate) struct Batch(Pin<KBox<Opaque<ffi::page_hinting_batch>>>);

// SAFETY: Nothing in it belongs to the task that made it.
unsafe impl Send for Batch {}

impl Batch {
    pub(crate) fn new() -> Result<Self> {
        let batch = KBox::pin(Opaque::new(ffi::page_hinting_batch::default()), GFP_KERNEL)?;

        // SAFETY: The pointer is valid, and what it points to stays where it is.
        unsafe { ffi::ph_batch_init(batch.get(), false) };
        Ok(Self(batch))
    }
}

/// Blocks that are on no free list, because this value owns them.
///
/// They are handed to the host by [`Isolated::submit`], or go back to the free lists as they were
/// when the value is dropped.
pub(crate) struct Isolated<'a>(&'a mut Batch);

impl<'a> Isolated<'a> {
    /// No blocks yet. `ranges`: for a device that takes ranges of blocks.
    pub(crate) fn new(batch: &'a mut Batch, ranges: bool, _: &InThread) -> Self {
        // SAFETY: The batch is valid, and empty: whoever used it before has submitted or returned
        // what was in it.
        unsafe { ffi::ph_batch_init(batch.0.get(), ranges) };
        Self(batch)
    }

    fn batch(&self) -> &ffi::page_hinting_batch {
        // SAFETY: It was initialised, and changes only with `self` borrowed mutably.
        unsafe { &*self.0 .0.get() }
    }

    /// Takes unhinted blocks of a zone's free area, the coldest first.
    ///
    /// Takes no more than `max_pages`, no more than the zone can spare, and no more than fit into
    /// `max_ranges` ranges of adjacent blocks, all that were taken before included. Returns the
    /// pages that were taken.
    pub(crate) fn take(&mut self, zone: Zone, order: u32, max_pages: u64, max_ranges: u32) -> u64 {
        let max_pages = usize::try_from(max_pages).unwrap_or(usize::MAX);

        if order > MAX_PAGE_ORDER {
            return 0;
        }
        // SAFETY: The batch was initialised, the zone is valid, and there is such an order.
        let pages = unsafe {
            ffi::page_hinting_take(self.0 .0.get(), zone.as_ptr(), order, max_pages, max_ranges)
        };
        if pages != 0 {
            // SAFETY: The zone is valid.
            unsafe { ffi::ph_trace_take(zone.as_ptr(), order, self.id() as usize, pages) };
        }
        pages as u64
    }

    /// The size of the blocks, in pages.
    pub(crate) fn pages(&self) -> u64 {
        self.batch().nr_pages as u64
    }

    /// How many ranges of adjacent blocks they are.
    pub(crate) fn ranges(&self) -> u32 {
        self.batch().nents
    }

    /// How many blocks there are.
    pub(crate) fn blocks(&self) -> u32 {
        self.batch().nr_blocks
    }

    /// A number that these blocks have alone until they are free again, or 0 if there are none.
    pub(crate) fn id(&self) -> u64 {
        // SAFETY: The batch was initialised.
        unsafe { ffi::ph_batch_id(self.0 .0.get()) as u64 }
    }

    /// Hands the blocks to the host, without waiting for it.
    ///
    /// On an error they are returned to the free lists: `ENODEV` if there is no device, `ENOSPC`
    /// if its queue is full, `EBUSY` if somebody waits for what is out, or an error of the device.
    /// `EINVAL` if there are no blocks.
    pub(crate) fn submit(self) -> Result<InFlight> {
        let mut request = core::ptr::null_mut();
        let (pages, ranges) = (self.pages(), self.ranges());

        if pages == 0 {
            return Err(EINVAL);
        }
        // SAFETY: The batch has blocks, and `request` is valid for writes. If it is taken, the
        // batch is empty, and there is nothing left to drop.
        to_result(unsafe { ffi::page_hinting_submit(self.0 .0.get(), &mut request) })?;
        Ok(InFlight {
            request: NonNull::new(request).ok_or(EINVAL)?,
            pages,
            ranges,
            submitted: Instant::now(),
        })
    }
}

impl Drop for Isolated<'_> {
    fn drop(&mut self) {
        if self.pages() != 0 {
            let id = self.id();

            // SAFETY: The batch has blocks; it has none after the first call, and they belong to
            // nobody after the second.
            let pages =
                unsafe { ffi::page_hinting_return(ffi::ph_batch_take_all(self.0 .0.get()), false) };
            // SAFETY: No requirements.
            unsafe { ffi::ph_trace_return(id as usize, pages, false) };
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
    pub(crate) ranges: u32,
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

    /// As [`Isolated::id`] was.
    pub(crate) fn id(&self) -> u64 {
        // SAFETY: Struct pages are never freed while their memory is online, nor is it offlined here.
        unsafe { ffi::ph_request_id(self.request.as_ptr()) as u64 }
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        if !self.acked {
            return;
        }
        let id = self.id();

        // SAFETY: The kernel has given the blocks to this value, and they belong to nobody after
        // the call.
        let pages = unsafe { ffi::page_hinting_return(self.request.as_ptr(), true) };
        // SAFETY: No requirements.
        unsafe { ffi::ph_trace_return(id as usize, pages, true) };
    }
}
