//! `deploy/kubernetes/procfleet.yaml`: what its documents name is in them, in the documents or in the programs.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use serde_json::Value;

use super::{assert_pinned, read, secrets, server_configuration, texts, yaml};

pub(super) fn documents() -> Result<Vec<Value>> {
    yaml(&read("deploy/kubernetes/procfleet.yaml")?)
}

pub(super) fn find<'a>(documents: &'a [Value], kind: &str) -> Result<&'a Value> {
    documents.iter().find(|document| document["kind"] == kind).context("kind")
}

pub(super) fn listed_environment(container: &Value) -> Result<BTreeMap<String, String>> {
    let pairs = container["env"].as_array().into_iter().flatten();
    pairs
        .map(|pair| {
            let text = |key: &str| pair[key].as_str().map(str::to_owned);
            Ok((text("name").context("name")?, text("value").context("a value")?))
        })
        .collect()
}

#[test]
fn what_kubernetes_names_is_there() -> Result<()> {
    let documents = documents()?;
    let readme = read("deploy/README.md")?;
    for document in &documents {
        ensure!(document["apiVersion"].is_string() && document["metadata"]["name"].is_string());
        if document["kind"] != "Namespace" {
            assert_eq!(document["metadata"]["namespace"], "procfleet", "{document:#}");
        }
    }
    for kind in ["Deployment", "DaemonSet"] {
        let workload = find(&documents, kind)?;
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(
            workload["spec"]["selector"]["matchLabels"],
            workload["spec"]["template"]["metadata"]["labels"]
        );
        let volumes = pod["volumes"].as_array().context("volumes")?;
        for volume in volumes {
            if let Some(secret) = volume["secret"]["secretName"].as_str() {
                ensure!(
                    readme.contains(secret),
                    "deploy/README.md does not say how {secret} is made"
                );
            }
        }
        let every = ["containers", "initContainers"].map(|key| pod[key].as_array().cloned());
        for container in every.into_iter().flatten().flatten() {
            assert_pinned(container["image"].as_str().context("image")?);
            ensure!(container["securityContext"]["allowPrivilegeEscalation"] == false);
            for mount in container["volumeMounts"].as_array().context("mounts")? {
                ensure!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
            }
        }
    }
    let container = &find(&documents, "Deployment")?["spec"]["template"]["spec"]["containers"][0];
    let secrets = secrets()?;
    let file = secrets.path().join("server.toml");
    let config = server_configuration(Some(&file), &listed_environment(container)?)?;
    ensure!(config.operator_door.tls_certificate_file.is_some());
    let command = [vec!["procfleet-server"], texts(&container["args"])].concat();
    ensure!(collector_api::cli::Cli::try_parse_from(command)?.serves());
    let ports: Vec<_> = container["ports"].as_array().context("ports")?.iter().collect();
    for service in documents.iter().filter(|document| document["kind"] == "Service") {
        for port in service["spec"]["ports"].as_array().context("ports")? {
            ensure!(ports.iter().any(|known| known["name"] == port["targetPort"]), "{port}");
        }
    }
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let path = container[probe]["httpGet"]["path"].as_str().context("path")?;
        ensure!(["/livez", "/readyz"].contains(&path), "{probe}");
    }
    Ok(())
}
