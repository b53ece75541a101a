// SPDX-License-Identifier: GPL-2.0

//! What the policy promises, for any input.

use page_hinting_policy::*;
use proptest::prelude::*;

const KNOBS: [Knob; 8] = [
    Knob::Enabled,
    Knob::MinOrder,
    Knob::HighWatermarkKb,
    Knob::LowWatermarkKb,
    Knob::BatchKb,
    Knob::HoldMs,
    Knob::HostGranuleKb,
    Knob::FlushTimeoutMs,
];

fn knobs() -> Knobs {
    Knobs::new(10, 4)
}

#[test]
fn defaults_are_what_the_abi_says() {
    let k = knobs();

    assert_eq!(k.get(Knob::Enabled), 1);
    assert_eq!(k.get(Knob::MinOrder), 9);
    assert_eq!(k.get(Knob::HighWatermarkKb), 16384);
    assert_eq!(k.get(Knob::LowWatermarkKb), 0);
    assert_eq!(k.get(Knob::BatchKb), 65536);
    assert_eq!(k.get(Knob::HoldMs), 1000);
    assert_eq!(k.get(Knob::HostGranuleKb), 2048);
    assert_eq!(k.granule_order(), 9);
    assert_eq!(k.get(Knob::FlushTimeoutMs), 10_000);
}

/// As on arm64, with pages of 16 and 64 KiB; and an allocator without blocks of that size.
#[test]
fn blocks_of_2_mib_are_hinted_whatever_a_page_is() {
    assert_eq!(Knobs::new(11, 16).min_order(), 7);
    assert_eq!(Knobs::new(13, 64).min_order(), 5);
    assert_eq!(Knobs::new(8, 4).min_order(), 8);
}

/// As on arm64 with pages of 64 KiB, where the largest has 512 MiB.
#[test]
fn a_block_may_not_fit_a_batch() {
    let k = Knobs::new(13, 64);
    let room = ZoneView {
        spare: 1 << 20,
        managed: 1 << 20,
        largest_block: 1 << 13,
        ..ZoneView::default()
    };

    assert!(room.fits(k.get(Knob::BatchKb) / 64, 10));
    assert!(!room.fits(k.get(Knob::BatchKb) / 64, 11));
}

#[test]
fn ranges_end_where_the_abi_says() {
    let k = knobs();

    for (knob, good, bad) in [
        (Knob::Enabled, vec![0, 1], vec![2]),
        (Knob::MinOrder, vec![0, 10], vec![11]),
        (
            Knob::HighWatermarkKb,
            vec![1, WATERMARK_KB_MAX],
            vec![0, WATERMARK_KB_MAX + 1, u64::MAX],
        ),
        (Knob::LowWatermarkKb, vec![0, 16383], vec![16384, u64::MAX]),
        (
            Knob::BatchKb,
            vec![BATCH_KB_MIN, BATCH_KB_MAX],
            vec![0, BATCH_KB_MIN - 1, BATCH_KB_MAX + 1],
        ),
        (Knob::HoldMs, vec![0, 60_000], vec![60_001, u64::MAX]),
        (
            Knob::HostGranuleKb,
            vec![4, 64, 4096],
            vec![0, 2, 12, 8192, u64::MAX],
        ),
        (Knob::FlushTimeoutMs, vec![1, 3_600_000], vec![0, 3_600_001]),
    ] {
        for v in good {
            assert_eq!(k.with(knob, v).map(|k| k.get(knob)), Ok(v), "{knob:?}");
        }
        for v in bad {
            assert_eq!(k.with(knob, v), Err(Invalid), "{knob:?} {v}");
        }
    }
}

#[test]
fn the_watermarks_stay_apart() {
    let k = knobs().with(Knob::LowWatermarkKb, 8192).unwrap();

    assert_eq!(k.with(Knob::HighWatermarkKb, 8192), Err(Invalid));
    assert!(k.with(Knob::HighWatermarkKb, 8193).is_ok());
}

#[test]
fn one_large_block_reaches_a_small_watermark() {
    let area = |blocks, order| Unhinted { blocks, order };

    assert!(area(1, 10).reaches(1));
    assert!(!area(0, 10).reaches(1));
    assert!(area(8, 9).reaches(4096));
    assert!(!area(7, 9).reaches(4096));
    assert!(area(1, 9).exceeds(0));
    assert!(!area(1, 9).exceeds(1));
    assert!(area(3, 9).exceeds(1024));
    assert!(!area(3, 9).exceeds(1025));
}

#[test]
fn a_small_zone_gives_little_and_a_tight_one_nothing() {
    let mut zone = ZoneView {
        spare: 200_000,
        managed: 262_144,
        isolated: 0,
        largest_block: 1024,
        ..ZoneView::default()
    };

    assert_eq!(zone.budget(16384, 0), 262_144 / 64);
    assert!(zone.fits(16384, 10));
    zone.spare = 100;
    assert_eq!(zone.budget(16384, 0), 50);
    zone.spare = 0;
    assert_eq!(zone.budget(16384, 0), 0);
    assert!(!zone.fits(16384, 0));
}

#[test]
fn a_zone_of_64_mib_gives_one_block_at_a_time() {
    let zone = ZoneView {
        spare: 8_192,
        managed: 16_384,
        isolated: 0,
        largest_block: 1024,
        ..ZoneView::default()
    };

    assert_eq!(zone.budget(16384, 0), 1024);
    assert!(zone.fits(16384, 10));
}

#[test]
fn the_queue_holds_several_requests() {
    assert_eq!(request_blocks(32, 32), 8);
    assert_eq!(request_blocks(32, 3), 3);
    assert_eq!(request_blocks(32, 0), 0);
    assert_eq!(request_blocks(1, 1), 1);
}

#[test]
fn a_second_without_an_answer_is_a_stall() {
    assert!(!is_stalled(999_999_999));
    assert!(is_stalled(1_000_000_000));
}

proptest! {
    /// Isolated and in flight never exceed the batch, nor half of what is spare, whatever is out.
    #[test]
    fn never_over_the_bound(
        spare: u64, managed: u64,
        zone_isolated in 0u64..100_000, others in 0u64..100_000, batch in 1u64..16384,
    ) {
        let zone = ZoneView {
            spare, managed, isolated: zone_isolated, largest_block: 1024,
            ..ZoneView::default()
        };
        let isolated = zone_isolated + others;
        let budget = zone.budget(batch, isolated);

        if budget > 0 {
            prop_assert!(isolated + budget <= batch);
            prop_assert!(zone_isolated + budget <= (managed / 64).max(1024));
            // As much of what is spare stays free as is out.
            prop_assert!(spare - budget >= zone_isolated + budget);
        }
    }

    /// Any sequence of writes leaves the knobs in their ranges.
    #[test]
    fn knobs_stay_valid(writes in prop::collection::vec((0usize..8, any::<u64>()), 0..100)) {
        let mut k = knobs();
        for (i, v) in writes {
            // Small values too: most of the ranges are small.
            for v in [v, v % 100_000] {
                if let Ok(new) = k.with(KNOBS[i], v) {
                    k = new;
                    prop_assert_eq!(k.get(KNOBS[i]), v);
                }
            }
            prop_assert!(k.get(Knob::LowWatermarkKb) < k.get(Knob::HighWatermarkKb));
            prop_assert!(k.get(Knob::MinOrder) <= 10);
            prop_assert!((BATCH_KB_MIN..=BATCH_KB_MAX).contains(&k.get(Knob::BatchKb)));
        }
    }

    /// What exceeds the low watermark has a block that can go.
    #[test]
    fn what_exceeds_can_give_a_block(blocks in 0u64..1 << 30, order in 0u32..=10, low in 0u64..1 << 40) {
        let area = Unhinted { blocks, order };

        if area.exceeds(low) {
            prop_assert!(blocks >= 1);
            prop_assert!((blocks - 1) << order >= low);
        } else if blocks > 0 {
            prop_assert!((blocks - 1) << order < low);
        }
    }
}
