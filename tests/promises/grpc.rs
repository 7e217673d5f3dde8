//! "Any gRPC client works": grpcurl finds the services by reflection and reads a verdict.

use std::process::Command;

use e2e::binaries::root;
use e2e::client::Platform;
use e2e::paint;
use e2e::process::Standalone;

fn grpcurl(arguments: &[&str]) -> String {
    let binary = root().join(".deps/bin/grpcurl");
    assert!(binary.exists(), "{} is missing: .ci/setup --tests builds it", binary.display());
    let output = Command::new(binary).arg("-plaintext").args(arguments).output().expect("grpcurl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("JSON is UTF-8")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_lists_the_services_and_reads_a_verdict() {
    let data = tempfile::tempdir().expect("a folder");
    let standalone = Standalone::scripted(data.path());
    let platform = Platform::connect(&standalone.connection).await;
    platform.put("a.png", paint::faces(1, 255)).await;
    platform.submit(platform.picture("a", "a.png")).await.expect("accepted");
    platform.verdict("a").await;

    let address = standalone.connection.endpoint.trim_start_matches("http://");
    let services = grpcurl(&[address, "list"]);
    for service in [
        "touchstone.v1.MediaService",
        "touchstone.v1.VerdictService",
        "touchstone.v1.AuditService",
        "grpc.health.v1.Health",
    ] {
        assert!(services.lines().any(|line| line == service), "{service} in:\n{services}");
    }
    let verdict = grpcurl(&["-d", r#"{"media_id":"a"}"#, address, "touchstone.v1.VerdictService/GetVerdict"]);
    let verdict: serde_json::Value = serde_json::from_str(&verdict).expect("JSON");
    assert_eq!(verdict["outcome"], "OUTCOME_LIKELY_FORGED");
    let health = grpcurl(&[
        "-d",
        r#"{"service":"touchstone.v1.VerdictService"}"#,
        address,
        "grpc.health.v1.Health/Check",
    ]);
    assert!(health.contains("SERVING"), "{health}");
}
