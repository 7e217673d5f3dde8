//! What a store means, as tests: every database passes all of them.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use proto::v1;

use super::*;
use crate::testing::{row, tenant, verdict};

const PAGE: PageBounds = PageBounds { rows_max: 100, bytes_max: 1 << 20 };

/// Runs the suite; `fresh` gives a new and empty store each time.
pub(crate) async fn suite(fresh: impl AsyncFn() -> Store) {
    rows_and_offset_move_together(&fresh().await).await;
    the_first_writer_wins(&fresh().await).await;
    a_second_projector_cannot_apply_twice(&fresh().await).await;
    one_tenant_never_sees_the_others(&fresh().await).await;
    newest_is_generation_then_time(&fresh().await).await;
    pages_are_bounded_by_bytes(&fresh().await).await;
    the_auditor_walks_rows_by_seat(&fresh().await).await;
    lists_are_what_the_filter_says(&fresh().await).await;
    what_few_have_in_common_is_looked_for_in_bounded_steps(&fresh().await).await;
    texts_of_any_length_and_content_are_stored_and_found(&fresh().await).await;
}

fn stretch(partition: i32, expected: Option<i64>, next_offset: i64, rows: Vec<Row>) -> Stretch {
    Stretch { partition, expected, next_offset, rows }
}

async fn rows_and_offset_move_together(store: &Store) {
    assert_eq!(store.offsets().await, Ok(vec![]));
    let one = verdict("default", "m", 1);
    let applied = store.apply(vec![stretch(0, None, 8, vec![row(0, 7, &one)])]).await;
    assert_eq!(applied, Ok(Applied { inserted: 1, ..Applied::default() }));
    let good = stretch(0, Some(8), 9, vec![row(0, 8, &verdict("default", "m", 2))]);
    let stale = stretch(1, Some(5), 6, vec![]);
    let refused = store.apply(vec![good, stale]).await;
    assert_eq!(refused, Err(StoreError::Overtaken { partition: 1 }));
    assert_eq!(store.offsets().await, Ok(vec![(0, 8)]), "both or neither");
    let page = store.list(&tenant("default"), Filter::default(), None, PAGE).await.unwrap();
    assert_eq!(page.rows.len(), 1, "both or neither");
}

async fn the_first_writer_wins(store: &Store) {
    let first = verdict("default", "m", 1);
    let same = v1::Verdict { attempt: 2, ..first.clone() };
    let other = v1::Verdict { probability: Some(0.25), ..first.clone() };
    let id = row(0, 0, &first).verdict_id;
    let rows = vec![row(0, 0, &first), row(0, 1, &same), row(0, 2, &other)];
    let applied = store.apply(vec![stretch(0, None, 3, rows)]).await.unwrap();
    assert_eq!(applied, Applied { inserted: 1, duplicates: 1, divergent: vec![id] });
    let stored = store.get(&tenant("default"), id).await.unwrap().unwrap();
    assert_eq!(stored, crate::testing::record_of(&first), "byte for byte");
    let foreign = stretch(0, Some(3), 4, vec![row(0, 0, &verdict("default", "m", 9))]);
    let refused = store.apply(vec![foreign]).await;
    assert!(matches!(refused, Err(StoreError::Refused { .. })), "two logs in one store: {refused:?}");
}

async fn a_second_projector_cannot_apply_twice(store: &Store) {
    let next = |n: i64| {
        let seen = if n == 0 { None } else { Some(n) };
        stretch(0, seen, n + 1, vec![row(0, n, &verdict("default", "m", n as u64))])
    };
    for n in 0..20 {
        let (one, other) = tokio::join!(store.apply(vec![next(n)]), store.apply(vec![next(n)]));
        assert_eq!(i32::from(one.is_ok()) + i32::from(other.is_ok()), 1, "{one:?} {other:?}");
    }
    assert_eq!(store.offsets().await, Ok(vec![(0, 20)]));
}

async fn one_tenant_never_sees_the_others(store: &Store) {
    let (a, b) = (verdict("a", "shared", 1), verdict("b", "shared", 2));
    let (id_a, id_b) = (row(0, 0, &a).verdict_id, row(0, 1, &b).verdict_id);
    store.apply(vec![stretch(0, None, 2, vec![row(0, 0, &a), row(0, 1, &b)])]).await.unwrap();
    assert!(store.get(&tenant("a"), id_a).await.unwrap().is_some());
    assert!(store.get(&tenant("a"), id_b).await.unwrap().is_none());
    let newest = store.newest(&tenant("a"), vec!["shared".to_owned()]).await.unwrap();
    assert_eq!(newest, [crate::testing::record_of(&a)]);
    let page = store.list(&tenant("a"), Filter::default(), None, PAGE).await.unwrap();
    assert_eq!(page.rows.len(), 1);
    assert!(store.newest(&tenant("c"), vec!["shared".to_owned()]).await.unwrap().is_empty());
}

async fn newest_is_generation_then_time(store: &Store) {
    let raised = v1::Verdict { generation: 1, ..verdict("default", "m", 1) };
    let later = verdict("default", "m", 2);
    let newest = v1::Verdict { generation: 1, ..verdict("default", "m", 3) };
    let rows = [&newest, &raised, &later].iter().zip(0..).map(|(v, at)| row(0, at, v)).collect();
    store.apply(vec![stretch(0, None, 3, rows)]).await.unwrap();
    let ids = ["m", "missing"].map(str::to_owned).to_vec();
    let found = store.newest(&tenant("default"), ids).await.unwrap();
    assert_eq!(found, [crate::testing::record_of(&newest)]);
}

async fn pages_are_bounded_by_bytes(store: &Store) {
    let rows = (0..5).map(|n| {
        let large = v1::Verdict { detail: "x".repeat(1_000), ..verdict("default", "m", n as u64) };
        row(0, n, &large)
    });
    store.apply(vec![stretch(0, None, 5, rows.collect())]).await.unwrap();
    let sizes = |bytes_max| async move {
        let (mut after, mut sizes) = (None, vec![]);
        loop {
            let bounds = PageBounds { rows_max: 100, bytes_max };
            let page = store.list(&tenant("default"), Filter::default(), after, bounds).await.unwrap();
            sizes.push(page.rows.len());
            let Some(next) = page.next else { return sizes };
            after = Some(next);
        }
    };
    assert_eq!(sizes(2_500).await, [2, 2, 1]);
    assert_eq!(sizes(1).await, [1; 5], "one is given however large");
}

async fn the_auditor_walks_rows_by_seat(store: &Store) {
    let verdicts: Vec<_> = (0..6).map(|n| verdict("default", "m", n)).collect();
    let ids: Vec<_> = verdicts.iter().map(|v| row(0, 0, v).verdict_id).collect();
    let rows = |partition: i32, range: std::ops::Range<usize>| {
        range.map(|n| row(partition, n as i64, &verdicts[n])).collect::<Vec<_>>()
    };
    let stretches = vec![stretch(0, None, 3, rows(0, 0..3)), stretch(1, None, 6, rows(1, 3..6))];
    store.apply(stretches).await.unwrap();
    let seats = store.seated(Seat::new(0, 1), Seat::new(1, 5), 3).await.unwrap();
    let expected: Vec<_> = [(0, 1), (0, 2), (1, 3)].map(|(p, o)| (Seat::new(p, o), ids[o as usize])).to_vec();
    assert_eq!(seats, expected);
    let unknown = row(0, 0, &verdict("default", "m", 99)).verdict_id;
    assert_eq!(store.known(vec![ids[4], unknown, ids[0]]).await.unwrap(), [ids[4], ids[0]]);
}

/// Against a model that filters and sorts in memory; pages of any size join to the same list.
async fn lists_are_what_the_filter_says(store: &Store) {
    let rows: Vec<Row> = (0..400_u64).map(|n| row((n % 3) as i32, (n / 3) as i64, &varied(n))).collect();
    for partition in 0..3 {
        let own: Vec<Row> = rows.iter().filter(|row| row.seat.partition() == partition).cloned().collect();
        store.apply(vec![stretch(partition, None, own.len() as i64, own)]).await.unwrap();
    }
    let mut runner = TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    let handle = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        runner
            .run(&(filters(), 1_usize..60), |(filter, rows_max)| {
                let mut expected: Vec<PageKey> = rows
                    .iter()
                    .filter(|row| row.tenant.as_str() == "default" && filter.passes(row))
                    .map(|row| PageKey { created_at_us: row.created_at_us, seat: row.seat })
                    .collect();
                expected.sort_unstable_by(|a, b| b.cmp(a));
                let listed = handle.block_on(list_all(store, &filter, rows_max));
                prop_assert_eq!(listed, expected);
                Ok(())
            })
            .unwrap();
    });
}

async fn what_few_have_in_common_is_looked_for_in_bounded_steps(store: &Store) {
    // Each condition is met by half of the rows, both only by the oldest one.
    let rows = (0..3_000_u64).map(|n| {
        let outcome =
            if n == 0 || n % 2 == 1 { v1::Outcome::LikelyForged } else { v1::Outcome::Inconclusive };
        let even = [("even".to_owned(), (n % 2 == 0).to_string())];
        let verdict =
            v1::Verdict { outcome: outcome.into(), labels: even.into(), ..verdict("default", "m", n) };
        row(0, n as i64, &verdict)
    });
    store.apply(vec![stretch(0, None, 3_000, rows.collect())]).await.unwrap();
    let filter = Filter {
        outcomes: [v1::Outcome::LikelyForged.into()].into(),
        labels: [("even".to_owned(), "true".to_owned())].into(),
        ..Filter::default()
    };
    let (mut after, mut sizes) = (None, vec![]);
    loop {
        let page = store.list(&tenant("default"), filter.clone(), after, PAGE).await.unwrap();
        sizes.push(page.rows.len());
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert_eq!(sizes, [0, 1], "1,500 candidates, a thousand a page");
}

/// The wire bounds neither labels nor the names of models.
async fn texts_of_any_length_and_content_are_stored_and_found(store: &Store) {
    let texts =
        ["plain".to_owned(), "nul\0inside".to_owned(), "nul\u{fffd}inside".to_owned(), "x".repeat(100_000)];
    let labels = |text: &str| [(text.to_owned(), text.to_owned())];
    let rows = texts.iter().zip(0..).map(|(text, n)| {
        let mut verdict = v1::Verdict { labels: labels(text).into(), ..verdict("default", "m", n) };
        let model = verdict.model.as_mut().expect("made with one");
        (model.name, model.sha256) = (text.clone(), text.clone());
        row(0, n as i64, &verdict)
    });
    store.apply(vec![stretch(0, None, 4, rows.collect())]).await.unwrap();
    for (text, n) in texts.iter().zip(0..) {
        let filters = [
            Filter { labels: labels(text).into(), ..Filter::default() },
            Filter { model_name: Some(text.clone()), ..Filter::default() },
            Filter { model_sha256: Some(text.clone()), ..Filter::default() },
        ];
        for filter in filters {
            let keys = list_all(store, &filter, 10).await;
            assert_eq!(keys.iter().map(|key| key.seat).collect::<Vec<_>>(), [Seat::new(0, n)], "{n}");
        }
    }
}

async fn list_all(store: &Store, filter: &Filter, rows_max: usize) -> Vec<PageKey> {
    let (mut after, mut keys) = (None, vec![]);
    loop {
        let bounds = PageBounds { rows_max, ..PAGE };
        let page = store.list(&tenant("default"), filter.clone(), after, bounds).await.unwrap();
        keys.extend(page.rows.iter().map(|stored| stored.key));
        let Some(next) = page.next else { return keys };
        after = Some(next);
    }
}

/// Few values and equal times, so that conditions meet and ties occur.
fn varied(n: u64) -> v1::Verdict {
    let name = if n.is_multiple_of(11) { "other" } else { "default" };
    let mut verdict = verdict(name, &format!("m-{}", n % 7), n);
    verdict.created_at = Some(prost_types::Timestamp { seconds: 1_000 + (n / 5) as i64, nanos: 0 });
    verdict.outcome = 1 + (n % 5) as i32;
    verdict.probability = (!n.is_multiple_of(4)).then_some((n % 21) as f32 / 20.0);
    let model = verdict.model.as_mut().expect("made with one");
    model.name = format!("model-{}", n % 2);
    model.sha256 = format!("{:02x}", n % 3).repeat(32);
    verdict.labels = [("parity", n % 2), ("third", n % 3)].map(|(k, v)| (k.to_owned(), v.to_string())).into();
    verdict
}

fn filters() -> impl Strategy<Value = Filter> {
    let time = || proptest::option::of((990_i64..1_090).prop_map(|s| s * 1_000_000));
    let probability = || proptest::option::of((0_u8..=20).prop_map(|p| f32::from(p) / 20.0));
    let label = (0..2_usize, 0..3_u8).prop_map(|(k, v)| (["parity", "third"][k].to_owned(), v.to_string()));
    (
        (time(), time()),
        proptest::collection::btree_set(1..6, 0..3),
        (probability(), probability()),
        proptest::option::of((0..3_u8).prop_map(|n| format!("model-{n}"))),
        proptest::option::of((0..3_u8).prop_map(|n| format!("{n:02x}").repeat(32))),
        proptest::collection::btree_map(Just(()), label, 0..2),
    )
        .prop_map(
            |(created, outcomes, probability, model_name, model_sha256, labels): (
                _,
                BTreeSet<i32>,
                _,
                _,
                _,
                _,
            )| {
                Filter {
                    created_from_us: created.0,
                    created_to_us: created.1,
                    outcomes,
                    probability_min: probability.0,
                    probability_max: probability.1,
                    model_name,
                    model_sha256,
                    labels: labels.into_values().collect(),
                }
            },
        )
}
