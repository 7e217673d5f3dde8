//! Query over gRPC, as callers meet it.

#![allow(clippy::unwrap_used)]

mod replicas;
mod support;
mod watching;

use proto::v1::get_verdict_request::By;
use proto::v1::{self, verify_response};
use support::{Service, of, sqlite, verdict};
use tonic::Code;
use tonic_types::StatusExt;

fn by_id(id: &str) -> v1::GetVerdictRequest {
    v1::GetVerdictRequest { by: Some(By::VerdictId(id.to_owned())) }
}

fn by_media(id: &str) -> v1::GetVerdictRequest {
    v1::GetVerdictRequest { by: Some(By::MediaId(id.to_owned())) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_found_by_id_and_by_media_and_by_its_tenant_only() {
    let mut service = Service::start().await;
    let (first, newest) = (verdict("acme", "clip", 1), verdict("acme", "clip", 2));
    service.publish(&[newest.clone(), first.clone(), verdict("other", "clip", 3)]).await;
    service.projected().await;
    let mut client = service.verdicts();
    let got = client.get_verdict(of("acme", by_id(&first.verdict_id))).await.unwrap().into_inner();
    assert_eq!(got, first);
    let got = client.get_verdict(of("acme", by_media("clip"))).await.unwrap().into_inner();
    assert_eq!(got, newest);

    for (tenant, request) in [("other", by_id(&first.verdict_id)), ("third", by_media("clip"))] {
        let status = client.get_verdict(of(tenant, request)).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.get_details_error_info().unwrap().reason, "VERDICT_NOT_FOUND");
    }
    let media_ids = ["clip", "missing"].map(str::to_owned).to_vec();
    let batch = v1::BatchGetVerdictsRequest { media_ids };
    let got = client.batch_get_verdicts(of("acme", batch)).await.unwrap().into_inner();
    assert_eq!(got.verdicts, [newest]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_names_its_field() {
    let service = Service::start().await;
    let mut client = service.verdicts();
    let field = |status: tonic::Status| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        status.get_details_bad_request().unwrap().field_violations[0].field.clone()
    };
    assert_eq!(field(client.get_verdict(by_id("7")).await.unwrap_err()), "verdict_id");
    let nothing = v1::GetVerdictRequest { by: None };
    assert_eq!(field(client.get_verdict(nothing).await.unwrap_err()), "by");
    let wrong_tenant = client.get_verdict(of("A|B", by_media("m"))).await.unwrap_err();
    assert_eq!(field(wrong_tenant), proto::TENANT_METADATA);
    let request = v1::ListVerdictsRequest { page_size: 1_001, ..Default::default() };
    assert_eq!(field(client.list_verdicts(request).await.unwrap_err()), "page_size");
    let request = v1::ListVerdictsRequest { page_token: "x".to_owned(), ..Default::default() };
    assert_eq!(field(client.list_verdicts(request).await.unwrap_err()), "page_token");
    let many = v1::BatchGetVerdictsRequest { media_ids: vec!["m".to_owned(); 1_001] };
    assert_eq!(field(client.batch_get_verdicts(many).await.unwrap_err()), "media_ids");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_join_to_the_whole_list_and_a_token_belongs_to_its_filter() {
    let mut service = Service::start().await;
    let verdicts: Vec<_> = (0..57).map(|n| verdict("default", &format!("m-{n}"), n)).collect();
    service.publish(&verdicts).await;
    service.projected().await;
    let mut client = service.verdicts();
    let forged = v1::VerdictFilter { outcomes: vec![1], ..Default::default() };
    let request = |filter: &v1::VerdictFilter, page_token: &str| v1::ListVerdictsRequest {
        filter: Some(filter.clone()),
        page_size: 5,
        page_token: page_token.to_owned(),
    };
    let (mut token, mut listed) = (String::new(), vec![]);
    loop {
        let page = client.list_verdicts(request(&forged, &token)).await.unwrap().into_inner();
        listed.extend(page.verdicts);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        let other = v1::VerdictFilter { outcomes: vec![2], ..Default::default() };
        let refused = client.list_verdicts(request(&other, &token)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let mut expected: Vec<_> = verdicts.into_iter().filter(|v| v.outcome == 1).collect();
    expected.reverse();
    assert_eq!(listed, expected, "newest first");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_read_is_counted_and_stops_nothing() {
    let mut service = Service::start().await;
    service.publish_bytes(b"\xff\xff no verdict").await;
    service.publish(&[verdict("default", "m", 1)]).await;
    let divergent = v1::Verdict { probability: Some(0.7), ..verdict("default", "m", 1) };
    service.publish(&[divergent, verdict("default", "m", 1)]).await;
    service.projected().await;
    assert!((service.metric("touchstone_query_verdict_undecodable_total") - 1.0).abs() < 0.1);
    assert!((service.metric("touchstone_query_verdict_divergence_total") - 1.0).abs() < 0.1);
    assert!((service.metric("touchstone_query_verdict_duplicates_total") - 1.0).abs() < 0.1);
    let got = service.verdicts().get_verdict(by_media("m")).await.unwrap().into_inner();
    assert_eq!(got, verdict("default", "m", 1), "the first one stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_and_a_lost_store_is_a_replay() {
    let mut service = Service::start().await;
    service.publish(&[verdict("default", "a", 1)]).await;
    service.projected().await;
    let mut service = service.restart(|_| {}).await;
    service.publish(&[verdict("default", "b", 2)]).await;
    service.projected().await;
    assert!((service.metric("touchstone_query_projected_total") - 1.0).abs() < 0.1, "only what is new");
    let lost = service.folder.path().join("another.db");
    let mut service = service.restart(|config| config.store = sqlite(lost)).await;
    service.projected().await;
    for media_id in ["a", "b"] {
        service.verdicts().get_verdict(by_media(media_id)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_streams_progress_violations_and_a_report() {
    let mut service = Service::start().await;
    // Written by hand, without the headers of an outcome.
    service.publish(&[verdict("default", "m", 1)]).await;
    service.projected().await;
    let mut stream = service.audits().verify(v1::VerifyRequest::default()).await.unwrap().into_inner();
    let (mut progress, mut violations, mut report) = (0, vec![], None);
    while let Some(response) = stream.message().await.unwrap() {
        assert!(report.is_none(), "the report comes last");
        match response.event.unwrap() {
            verify_response::Event::Progress(_) => progress += 1,
            verify_response::Event::Violation(violation) => violations.push(violation),
            verify_response::Event::Report(last) => report = Some(last),
        }
    }
    let report = report.unwrap();
    assert!(progress > 0);
    assert_eq!((report.outcomes, report.rows, report.violations), (1, 1, 1));
    assert_eq!(violations[0].kind(), v1::audit_violation::Kind::UnreadableOutcome);
    assert_eq!(violations[0].outcome.as_ref().unwrap().topic, service.config.topics.verdicts);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_per_service_until_shutdown() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let mut service = Service::start().await;
    service.projected().await;
    let mut client = HealthClient::new(service.channel.clone());
    let mut check = async |name: &str, serving: bool| {
        let told = async {
            loop {
                let request = HealthCheckRequest { service: name.to_owned() };
                if (client.check(request).await.unwrap().into_inner().status == 1) == serving {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(std::time::Duration::from_secs(20), told).await;
        assert!(in_time.is_ok(), "{name:?} never said that it is SERVING: {serving}");
    };
    // What the projector holds: "starting" again, as a store that went away would have it.
    for serving in [true, false, true] {
        let gate = service.ops.readiness.gate("projector");
        if serving {
            gate.ready();
        }
        for name in ["touchstone.v1.VerdictService", "touchstone.v1.AuditService"] {
            check(name, serving).await;
        }
        check("", true).await;
    }
    service.ops.shutdown.request();
    service.ops.tasks.join(tokio::time::Instant::now() + std::time::Duration::from_secs(20)).await.unwrap();
}
