//! `WatchVerdicts`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proto::v1::watch_verdicts_response::Event;
use proto::v1::{self, WatchVerdictsRequest, WatchVerdictsResponse};
use tonic::{Code, Request, Streaming};

use crate::support::{Service, of, until, verdict};

type Watch = Streaming<WatchVerdictsResponse>;

async fn watch(service: &Service, request: WatchVerdictsRequest) -> Watch {
    service.verdicts().watch_verdicts(of("default", request)).await.unwrap().into_inner()
}

async fn next(watch: &mut Watch) -> WatchVerdictsResponse {
    let next = tokio::time::timeout(Duration::from_secs(20), watch.message()).await;
    next.unwrap().unwrap().unwrap()
}

async fn next_verdict(watch: &mut Watch) -> (v1::Verdict, String) {
    loop {
        let response = next(watch).await;
        match response.event.unwrap() {
            Event::Verdict(verdict) => return (verdict, response.resume_token),
            Event::Heartbeat(_) => {}
            Event::Gap(gap) => panic!("{gap:?}"),
        }
    }
}

fn from_start() -> WatchVerdictsRequest {
    WatchVerdictsRequest { from_start: true, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_come_as_they_are_published_to_their_own_tenant() {
    let service = Service::start().await;
    service.publish(&[verdict("default", "before", 1)]).await;
    let mut watch = watch(&service, WatchVerdictsRequest::default()).await;
    service.publish(&[verdict("other", "foreign", 2), verdict("default", "after", 3)]).await;
    assert_eq!(next_verdict(&mut watch).await.0, verdict("default", "after", 3), "from now on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_from_any_token_without_loss_or_repetition() {
    let service = Service::start().await;
    let all: Vec<_> = (0..40).map(|n| verdict("default", &format!("m-{n}"), n)).collect();
    service.publish(&all).await;
    let ids: BTreeSet<String> = all.iter().map(|v| v.verdict_id.clone()).collect();
    let (mut seen, mut token) = (BTreeSet::new(), String::new());
    // A new stream for each handful, each from where the one before stood.
    while seen.len() < 40 {
        let request = match token.as_str() {
            "" => from_start(),
            token => WatchVerdictsRequest { resume_token: token.to_owned(), ..Default::default() },
        };
        let mut watch = watch(&service, request).await;
        for _ in 0..7.min(40 - seen.len()) {
            let (verdict, next) = next_verdict(&mut watch).await;
            assert!(seen.insert(verdict.verdict_id), "twice");
            token = next;
        }
    }
    assert_eq!(seen, ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_filters_and_says_that_it_lives() {
    let service = Service::with(|config| config.watch.heartbeat = Duration::from_millis(20)).await;
    let filter = v1::VerdictFilter { outcomes: vec![3], ..Default::default() };
    let mut watch = watch(
        &service,
        WatchVerdictsRequest { filter: Some(filter), from_start: true, ..Default::default() },
    )
    .await;
    service.publish(&[verdict("default", "a", 1), verdict("default", "b", 2)]).await;
    assert_eq!(next_verdict(&mut watch).await.0.media_id, "b");
    assert!(matches!(next(&mut watch).await.event, Some(Event::Heartbeat(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_gets_a_gap_marker_and_holds_nobody_up() {
    let service = Service::with(|config| {
        config.watch.buffer = 2;
        config.watch.patience = Duration::from_millis(1);
    })
    .await;
    let mut slow = watch(&service, from_start()).await;
    let mut fast = watch(&service, from_start()).await;
    // On a busy machine the fast one misses some as well, and is told.
    let (mut published, mut told_fast) = (0_u64, 0);
    let missed = |told: u64| service.metric("touchstone_query_watch_missed_total") > told as f64;
    // More than all windows between here and there hold.
    while !missed(told_fast) {
        let batch: Vec<_> = (0..200)
            .map(|n| {
                let detail = "x".repeat(4_000);
                v1::Verdict { detail, ..verdict("default", "m", published + n) }
            })
            .collect();
        service.publish(&batch).await;
        published += 200;
        let mut taken = 0;
        while taken < 200 {
            match next(&mut fast).await.event.unwrap() {
                Event::Verdict(_) => taken += 1,
                Event::Gap(gap) => {
                    taken += gap.missed_count;
                    told_fast += gap.missed_count;
                }
                Event::Heartbeat(_) => {}
            }
        }
        assert!(published < 20_000, "a bounded buffer is full by now");
    }
    let (mut seen, mut told) = (0, 0);
    while seen + told < published {
        match next(&mut slow).await.event.unwrap() {
            Event::Verdict(_) => seen += 1,
            Event::Gap(gap) => told += gap.missed_count,
            Event::Heartbeat(_) => {}
        }
    }
    assert_eq!(seen + told, published, "what was not sent was counted");
    assert!(told > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_at_its_deadline_and_at_shutdown() {
    let service = Service::start().await;
    let mut request = Request::new(WatchVerdictsRequest::default());
    // By hand: the client's own timer shall not be what ends it.
    request.metadata_mut().insert("grpc-timeout", "150m".parse().unwrap());
    let began = Instant::now();
    let mut watch = service.verdicts().watch_verdicts(request).await.unwrap().into_inner();
    let ended = tokio::time::timeout(Duration::from_secs(20), watch.message()).await.unwrap();
    assert_eq!(ended.unwrap_err().code(), Code::DeadlineExceeded);
    assert!(began.elapsed() >= Duration::from_millis(150));

    let mut open = self::watch(&service, WatchVerdictsRequest::default()).await;
    service.ops.shutdown.request();
    let ended = tokio::time::timeout(Duration::from_secs(20), open.message()).await.unwrap();
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    service.ops.tasks.join(tokio::time::Instant::now() + Duration::from_secs(20)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_elsewhere_and_too_many_watchers_are_refused() {
    let service = Service::with(|config| config.watch.watchers_max = 1).await;
    let refused = async |request| {
        service.verdicts().watch_verdicts(of("default", request)).await.map(drop).unwrap_err().code()
    };
    let beyond =
        WatchVerdictsRequest { resume_token: "AQAAAAAAAABjAAAAAAAAAGM".to_owned(), ..Default::default() };
    assert_eq!(refused(beyond.clone()).await, Code::InvalidArgument, "offsets that the log has not reached");
    let both = WatchVerdictsRequest { from_start: true, ..beyond };
    assert_eq!(refused(both).await, Code::InvalidArgument);
    let open = watch(&service, from_start()).await;
    assert_eq!(refused(from_start()).await, Code::ResourceExhausted);
    drop(open);
    until("a watcher that left makes room", || {
        let families = service.ops.registry.gather();
        let watchers = families.iter().find(|family| family.name() == "touchstone_query_watchers");
        watchers.is_some_and(|family| family.get_metric()[0].get_gauge().get_value() < 0.5)
    })
    .await;
    let _again = watch(&service, from_start()).await;
}
