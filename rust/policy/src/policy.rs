// SPDX-License-Identifier: GPL-2.0

//! Pure decisions: when to hint, how much to take, which knob values are good.
//!
//! No kernel types and no state but what is passed in. Sizes are in pages where
//! nothing else is said. Arithmetic saturates, so that no input can overflow.

/// Most that may be isolated or in flight, in KiB: the 64 MiB of the design.
pub const BATCH_KB_MAX: u64 = 64 * 1024;

/// Least value of `batch_kb`: one block of the largest order with 4 KiB pages.
pub const BATCH_KB_MIN: u64 = 4 * 1024;

/// Largest `hold_ms`: a minute.
pub const HOLD_MS_MAX: u64 = 60_000;

/// Largest `flush_timeout_ms`: an hour.
pub const FLUSH_TIMEOUT_MS_MAX: u64 = 3_600_000;

/// Largest watermark, in KiB (4 TiB): far above any free area, far below overflow.
pub const WATERMARK_KB_MAX: u64 = 1 << 32;

/// How long a request may be with the host before that is a stall, in nanoseconds.
pub const STALL_NS: u64 = 1_000_000_000;

/// How often the thread looks whether the host has stalled, in milliseconds.
pub const STALL_CHECK_MS: u32 = 250;

/// How long the guest waits for the host before a task is killed for want of memory, and for how
/// long nothing goes out then, in milliseconds.
pub const OOM_WAIT_MS: u64 = 100;
pub const OOM_HOLD_MS: u64 = 1000;

/// How long the thread waits before it tries again in milliseconds, when somebody waits for what is
/// out; or when somebody waits for a flush, and blocks could not be had or handed over.
pub const RETRY_MS: u32 = 20;

/// How often the thread looks for blocks that no watermark has told it about, in milliseconds.
///
/// The same as page reporting's default delay: what never reaches the watermark leaves the guest
/// no later than it does without this module.
pub const TRICKLE_MS: u32 = 2000;

/// How long after the watermark was reached, or had it hint, the thread looks for the rest of what
/// was freed, in milliseconds.
///
/// What is freed at one blow is hinted while it is still being freed. Only blocks of the largest
/// order are then: what is smaller may merge with what comes next, and would be hinted again as a
/// part of that. Of the last of it there may be less than the watermark; and some is in the per-CPU
/// lists, and keeps other blocks from merging.
pub const FOLLOW_UP_MS: u32 = 100;

/// How long after it has drained the per-CPU lists to follow up the thread may do so again, in
/// milliseconds: a guest that frees much all the time has use for them.
pub const DRAIN_MS: u32 = 1000;

/// The same while memory is kept for a cycle, which uses what the lists hold.
pub const DRAIN_BUSY_MS: u32 = 10_000;

/// What was hinted since then that makes it worth it all the same, and sooner: such a part of the
/// guest's memory, as the lists hold more where there is more, but no less than so many KiB.
pub const MUCH_PART: u64 = 64;
pub const MUCH_KB: u64 = 64 * 1024;

/// How soon, in milliseconds, after the last pass that found something.
pub const DRAIN_SOON_MS: u32 = 20;

/// For how long the host's word counts, in milliseconds: `hold_ms` is taken for 0 then.
pub const ASKED_MS: u32 = 60_000;

/// How often, in milliseconds, the host's word has all free memory hinted once more, at most.
pub const REHINT_MS: u32 = 600_000;

/// The least that is worth keeping, in KiB, unless the high watermark is less.
///
/// What wakes nobody is hinted every [`TRICKLE_MS`] at most: it can go on like that for ever.
pub const WORTH_KB: u64 = 16 * 1024;

/// A knob that takes a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knob {
    /// Whether to hint at all: 0 or 1.
    Enabled,
    /// Lowest order hinted: 0 to the largest order of the buddy allocator.
    MinOrder,
    /// Unhinted memory of a free area that wakes the thread: above the low watermark.
    HighWatermarkKb,
    /// Unhinted memory of a free area that is left alone: below the high watermark.
    LowWatermarkKb,
    /// Most memory isolated or in flight: [`BATCH_KB_MIN`] to [`BATCH_KB_MAX`].
    BatchKb,
    /// For how long free memory that was used again within this time before is kept from the host:
    /// 0 for never, up to [`HOLD_MS_MAX`].
    HoldMs,
    /// Size of the pages that the host backs the guest with: a power of two, from a page to a
    /// block of the largest order.
    HostGranuleKb,
    /// How long a flush waits for the host: 1 to [`FLUSH_TIMEOUT_MS_MAX`].
    FlushTimeoutMs,
    /// Whether to hint all memory anew when the guest finds that it is a copy of another: 0 or 1.
    RehintOnVmfork,
}

impl Knob {
    /// How many knobs there are.
    const COUNT: usize = Self::RehintOnVmfork as usize + 1;
}

/// A value that a knob does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

/// The values of all knobs.
///
/// # Invariants
///
/// Each value is in its range, and `low_watermark_kb < high_watermark_kb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// By [`Knob`].
    values: [u64; Knob::COUNT],
    max_order: u32,
    page_kb: u64,
}

impl Knobs {
    /// The defaults: hint blocks of 2 MiB and larger, whatever a page is, once 16 MiB of them are
    /// free in an area. 2 MiB is what most hosts' huge pages have.
    ///
    /// `page_kb` is the size of a page of the guest, a power of two.
    pub fn new(max_order: u32, page_kb: u64) -> Self {
        let largest_kb = page_kb << max_order;
        let min_order = order_of(2048, page_kb).min(max_order);

        // INVARIANT: The constants are in their ranges, and so are the orders and sizes.
        Self {
            values: [
                1,
                min_order.into(),
                16 * 1024,
                0,
                BATCH_KB_MAX,
                1000,
                2048.max(page_kb).min(largest_kb),
                10_000,
                0,
            ],
            max_order,
            page_kb,
        }
    }

    /// The value of a knob.
    pub fn get(&self, knob: Knob) -> u64 {
        self.values.get(knob as usize).copied().unwrap_or(0)
    }

    /// The knobs with one of them changed.
    pub fn with(mut self, knob: Knob, value: u64) -> Result<Self, Invalid> {
        let range = match knob {
            Knob::Enabled => 0..=1,
            Knob::MinOrder => 0..=self.max_order.into(),
            Knob::HighWatermarkKb => {
                self.get(Knob::LowWatermarkKb).saturating_add(1)..=WATERMARK_KB_MAX
            }
            Knob::LowWatermarkKb => 0..=self.get(Knob::HighWatermarkKb).saturating_sub(1),
            Knob::BatchKb => BATCH_KB_MIN..=BATCH_KB_MAX,
            Knob::HoldMs => 0..=HOLD_MS_MAX,
            Knob::HostGranuleKb => self.page_kb..=self.page_kb << self.max_order,
            Knob::FlushTimeoutMs => 1..=FLUSH_TIMEOUT_MS_MAX,
            Knob::RehintOnVmfork => 0..=1,
        };
        if !range.contains(&value) || (knob == Knob::HostGranuleKb && !value.is_power_of_two()) {
            return Err(Invalid);
        }
        // INVARIANT: The value was just found to be in its range.
        if let Some(old) = self.values.get_mut(knob as usize) {
            *old = value;
        }
        Ok(self)
    }

    /// The value of a knob in KiB, as pages of the guest, rounded down.
    pub fn pages(&self, knob: Knob) -> u64 {
        self.kb_to_pages(self.get(knob))
    }

    /// So many KiB, as pages of the guest, rounded down.
    pub fn kb_to_pages(&self, kb: u64) -> u64 {
        kb.checked_div(self.page_kb).unwrap_or(0)
    }

    /// Whether to hint at all.
    pub fn enabled(&self) -> bool {
        self.get(Knob::Enabled) != 0
    }

    /// Lowest order hinted.
    pub fn min_order(&self) -> u32 {
        // CAST: At most `max_order`.
        self.get(Knob::MinOrder) as u32
    }

    /// The largest order of the buddy allocator.
    pub fn max_order(&self) -> u32 {
        self.max_order
    }

    /// The order of a host's page, as `host_granule_kb` has it.
    pub fn granule_order(&self) -> u32 {
        order_of(self.get(Knob::HostGranuleKb), self.page_kb)
    }
}

/// The order of a block of `kb` KiB. Both sizes are powers of two.
fn order_of(kb: u64, page_kb: u64) -> u32 {
    kb.trailing_zeros().saturating_sub(page_kb.trailing_zeros())
}

/// A free area's blocks that are not hinted, by number and order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unhinted {
    /// Blocks on the free lists that are not Offline.
    pub blocks: u64,
    /// Their order.
    pub order: u32,
}

impl Unhinted {
    /// Their size in pages.
    pub fn pages(self) -> u64 {
        self.blocks.saturating_mul(1 << self.order)
    }

    /// Those of them that so many pages have room for.
    pub fn up_to(self, pages: u64) -> Self {
        Self {
            blocks: self.blocks.min(pages >> self.order),
            ..self
        }
    }

    /// Whether they are enough to begin hinting.
    ///
    /// One block is, where a block is larger than the watermark. The hook in the page allocator
    /// compares alike.
    pub fn reaches(self, high_watermark: u64) -> bool {
        self.blocks >= high_watermark.max(1).div_ceil(1 << self.order)
    }

    /// Whether there are enough to go on hinting: one block can go and the rest is not below.
    pub fn exceeds(self, low_watermark: u64) -> bool {
        self.pages().saturating_sub(low_watermark) >> self.order != 0
    }
}

/// What the thread sees of a zone, in pages, read under one hold of its lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZoneView<'a> {
    /// Free pages above the zone's high watermark and its reserves.
    pub spare: u64,
    /// Pages that the buddy allocator manages.
    pub managed: u64,
    /// Pages out for hinting.
    pub isolated: u64,
    /// The largest block that there can be.
    pub largest_block: u64,
    /// Blocks that are not Offline, by order: their number.
    pub unhinted: &'a [usize],
    /// Pages in free blocks of the hinted orders, Offline or not, and pages that are out.
    pub eligible: u64,
    /// The least of `eligible` since a view of the zone was taken last.
    pub eligible_low: u64,
    /// The least of all pages that are not Offline, in free blocks of the hinted orders, since
    /// then.
    pub unhinted_low: u64,
    /// Offline pages that the host brings back for allocations, ever; may wrap.
    pub offline_used: u64,
}

impl ZoneView<'_> {
    /// The areas that have an order, from `min_order` up.
    pub fn areas(&self, min_order: u32) -> impl Iterator<Item = Unhinted> + Clone + '_ {
        let areas = self.unhinted.iter().enumerate();
        let areas = areas.map(|(order, blocks)| Unhinted {
            blocks: *blocks as u64,
            // CAST: There are few orders.
            order: order as u32,
        });

        areas.skip(min_order as usize)
    }

    /// The most that may be out of the zone at a time.
    ///
    /// Half of what is spare, so that hinting alone never makes reclaim begin, and no more than the
    /// batch or 1/64 of the zone. A small zone may nevertheless give one block of any order: most
    /// of its free memory is in the largest, and would never be hinted.
    pub fn bound(&self, batch: u64) -> u64 {
        batch
            .min(self.spare.saturating_add(self.isolated) / 2)
            .min((self.managed / 64).max(self.largest_block))
    }

    /// Whether the zone can spare a block of an order at all.
    pub fn fits(&self, batch: u64, order: u32) -> bool {
        self.bound(batch) >> order != 0
    }

    /// What may be taken from the zone now, `isolated` being out of all zones together.
    pub fn budget(&self, batch: u64, isolated: u64) -> u64 {
        self.bound(batch)
            .saturating_sub(self.isolated)
            .min(batch.saturating_sub(isolated))
    }
}

/// Blocks that the next request may have, with `room` of the queue's `capacity` left.
///
/// A quarter of the queue, so that the host works on one request while the guest assembles the
/// next; 0 if the queue is full. Blocks that lie beside each other use less.
pub fn request_blocks(capacity: u32, room: u32) -> u32 {
    (capacity / 4).max(1).min(room)
}

/// Whether a host that has had a request for `ns` nanoseconds is stalled.
pub fn is_stalled(ns: u64) -> bool {
    ns >= STALL_NS
}
