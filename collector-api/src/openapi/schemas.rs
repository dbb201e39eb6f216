//! Schemas of the protocol's own types, held against them by a test.

use serde_json::{Value, json};
use shared_model::ProblemCode;
use shared_model::configuration::{
    MAX_ERROR_BYTES, MAX_LIMITED, MAX_PATTERN_BYTES, MAX_PATTERNS, MAX_TOP,
};
use shared_model::limits::{MAX_INTERVAL_MS, MIN_INTERVAL_MS};
use shared_model::validate::MAX_FIELD_ERRORS;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{Components, RefOr};

/// Adds every schema of this module.
pub fn add_to(components: &mut Components) {
    for (name, schema) in [
        ("Problem", problem()),
        ("ProblemCode", problem_code()),
        ("FieldError", field_error()),
        ("ReportsAnswer", reports_answer()),
        ("RejectedReport", rejected_report()),
        ("EnrollRequest", enroll_request()),
        ("EnrollResponse", enroll_response()),
        ("RenewRequest", renew_request()),
        ("CertificateInUse", certificate_in_use()),
        ("RecoveryNonce", recovery_nonce()),
        ("RecoverRequest", recover_request()),
        ("TrustRequest", trust_request()),
        ("TrustAnswer", trust_answer()),
        ("Configuration", configuration()),
        ("ConfigurationStatus", configuration_status()),
        ("ConfigurationAnswer", configuration_answer()),
        ("GoodbyeNote", goodbye_note()),
        ("HostFacts", host_facts()),
        ("Records", records()),
    ] {
        #[expect(clippy::expect_used, reason = "constants, read back by a test")]
        let schema: RefOr<Schema> =
            serde_json::from_value(schema).expect("the constant is a schema");
        components.schemas.insert(name.into(), schema);
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn uuid(description: &str) -> Value {
    json!({ "type": "string", "format": "uuid", "description": description })
}

fn time(description: &str) -> Value {
    json!({ "type": "string", "format": "date-time", "description": description })
}

fn count(description: &str) -> Value {
    json!({ "type": "integer", "format": "int64", "minimum": 0, "description": description })
}

fn list(name: &str, description: &str) -> Value {
    json!({ "type": "array", "items": reference(name), "description": description })
}

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "Every answer that is not a success (RFC 9457), as `application/problem+json`.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": text("`urn:procfleet:problem:<code>`."),
            "title": text("The same sentence for every occurrence of the code."),
            "status": { "type": "integer", "format": "int32", "description": "HTTP status." },
            "detail": text("What happened to which object, and what to do."),
            "code": reference("ProblemCode"),
            "errors": list("FieldError", "Fields or parameters at fault."),
            "acknowledged_sequence": count("The stream's committed cursor, where `POST /v1/reports` knows it."),
            "rejected": list("RejectedReport", "Records passed over, when every record of a request was."),
            "request_id": text("Id of the request, to be found in the server's log."),
        },
    })
}

fn problem_code() -> Value {
    let codes: Vec<String> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "type": "string",
        "description": "What programs act on. New codes may appear: treat them as their status says.",
        "enum": codes,
    })
}

fn field_error() -> Value {
    json!({
        "type": "object",
        "required": ["field", "detail"],
        "properties": {
            "field": text("Parameter, or path from the root of the document, such as `processes[3].cpu_user_us`."),
            "detail": text("What is wrong with it and what would be right."),
        },
    })
}

fn reports_answer() -> Value {
    json!({
        "type": "object",
        "description": "Where the stream stands, committed.",
        "required": ["stream_id", "acknowledged_sequence", "accepted", "duplicates", "server_time"],
        "properties": {
            "stream_id": uuid("The stream asked about."),
            "acknowledged_sequence": count("Highest sequence durably decided; 0: stream unknown. Lower than an earlier answer: the database was restored, go on after this one."),
            "accepted": count("Records of this request stored now."),
            "duplicates": count("Records of this request that were stored before."),
            "rejected": list("RejectedReport", "Records of this request that will never be stored."),
            "next_send_after_ms": count("Milliseconds to wait before the next request, also with more to send: the server is busy."),
            "server_time": time("The server's clock."),
        },
    })
}

fn rejected_report() -> Value {
    json!({
        "type": "object",
        "description": "A poison report: recorded, passed over, never stored.",
        "required": ["sequence", "code", "detail"],
        "properties": {
            "sequence": count("Which."),
            "code": reference("ProblemCode"),
            "detail": text("Why."),
            "errors": { "type": "array", "maxItems": MAX_FIELD_ERRORS, "items": reference("FieldError"),
                "description": "Which fields." },
        },
    })
}

fn goodbye_note() -> Value {
    json!({
        "type": "object",
        "required": ["reason"],
        "additionalProperties": false,
        "properties": {
            "reason": { "type": "string", "enum": ["shutdown", "restart", "upgrade", "uninstall"],
                "description": "Why the agent stops." },
        },
    })
}

fn enroll_request() -> Value {
    json!({
        "type": "object",
        "required": ["version", "csr_pem", "facts"],
        "properties": {
            "version": { "type": "integer", "format": "int32", "description": "Protocol version of the agent: 1." },
            "csr_pem": text("PKCS #10, PEM, P-256. The server takes its public key and nothing else."),
            "facts": reference("HostFacts"),
        },
    })
}

fn enroll_response() -> Value {
    json!({
        "type": "object",
        "required": ["host_id", "certificate_chain_pem", "ca_bundle_pem", "not_after", "renew_after", "server_time", "endpoints"],
        "properties": {
            "host_id": uuid("The identity: also in the certificate's SAN as `urn:procfleet:host:<uuid>`."),
            "certificate_chain_pem": text("Client certificate and its issuers, PEM, leaf first."),
            "ca_bundle_pem": text("Server CAs to trust from now on, PEM."),
            "not_after": time("End of the certificate."),
            "renew_after": time("When to renew it."),
            "server_time": time("The server's clock."),
            "endpoints": { "type": "array", "items": { "type": "string" },
                "description": "Agent-door endpoints in order of preference." },
        },
    })
}

fn renew_request() -> Value {
    json!({
        "type": "object",
        "required": ["version", "csr_pem"],
        "properties": {
            "version": { "type": "integer", "format": "int32", "description": "Protocol version of the agent: 1." },
            "csr_pem": text("PKCS #10, PEM, P-256, of a new key. The server takes its public key and nothing else."),
        },
    })
}

fn certificate_in_use() -> Value {
    json!({
        "type": "object",
        "required": ["host_id", "serial", "server_time"],
        "properties": {
            "host_id": uuid("The host it stands for."),
            "serial": text("Of the certificate, hex."),
            "server_time": time("The server's clock."),
        },
    })
}

fn recovery_nonce() -> Value {
    json!({
        "type": "object",
        "required": ["nonce"],
        "properties": { "nonce": text("For one recovery, within five minutes.") },
    })
}

fn trust_request() -> Value {
    json!({
        "type": "object",
        "properties": { "trust_id": text("Of the set that the host keeps; absent: it does not know.") },
    })
}

fn trust_answer() -> Value {
    json!({
        "type": "object",
        "required": ["trust_id", "ca_bundle_pem"],
        "properties": {
            "trust_id": text("Another one: something changed."),
            "ca_bundle_pem": text("Server CAs to trust from now on, PEM."),
            "renew_after": { "type": "string", "format": "date-time", "description": "The host's certificate is of an authority that signs no more: when to renew it." },
        },
    })
}

fn configuration() -> Value {
    let number = |description: &str| json!({ "type": "number", "format": "double", "minimum": 0, "description": description });
    let texts = |description: &str| {
        json!({
            "type": "array", "maxItems": MAX_PATTERNS, "description": description,
            "items": { "type": "string", "minLength": 1, "maxLength": MAX_PATTERN_BYTES },
        })
    };
    let table = |description: &str, keys: Value| json!({ "type": "object", "additionalProperties": false, "description": description, "properties": keys });
    let excluded = |description: &str| {
        table(
            description,
            json!({ "exclude": texts("Regular expressions on names that are not reported.") }),
        )
    };
    json!({
        "type": "object",
        "additionalProperties": false,
        "description": "What agents are to use. A key that is not set stays what another layer, the agent's own file or its default says; a list replaces the whole list.",
        "example": { "interval_ms": 10_000, "profile": { "cpu_cores": 0.05, "always_keep": ["mysqld"] } },
        "properties": {
            "interval_ms": { "type": "integer", "minimum": MIN_INTERVAL_MS, "maximum": MAX_INTERVAL_MS, "description": "Time between two reports." },
            "profile": table("What is recorded.", json!({
                "cpu_cores": number("CPU from which on a process is recorded, cores."),
                "memory_bytes": count("Resident set."),
                "disk_bytes_per_second": count("Disk, read plus write."),
                "network_bytes_per_second": count("Network, received plus transmitted."),
                "top": { "type": "integer", "minimum": 0, "maximum": MAX_TOP, "description": "How many of each resource's largest users are kept whatever they use." },
                "always_keep": texts("Regular expressions on the redacted command line: kept whatever they use."),
                "keep_all": { "type": "boolean", "description": "Keep every process." },
            })),
            "redaction": table("What is hidden.", json!({ "patterns": texts("Regular expressions hidden in command lines beside what always is.") })),
            "budget": table("What the agent may cost.", json!({
                "cpu_cores": { "type": "number", "format": "double", "exclusiveMinimum": 0, "description": "CPU, cores." },
                "memory_bytes": count("Resident memory."),
            })),
            "collect": table("Which collectors work.", json!({ "disabled": texts("Names of collectors that do not work.") })),
            "filesystem": table("Which file systems are reported.", json!({
                "exclude_types": texts("Types that are not reported."),
                "exclude_mount_points": texts("Regular expressions on mount points that are not reported."),
            })),
            "block_device": excluded("Which block devices are reported."),
            "network_interface": excluded("Which network interfaces are reported."),
        },
    })
}

fn configuration_status() -> Value {
    let hash = |description: &str| json!({ "type": ["string", "null"], "pattern": "^[0-9a-f]{64}$", "description": description });
    json!({
        "type": "object",
        "properties": {
            "received": hash("The last one that the agent read."),
            "applied": hash("The one it works by."),
            "failed": hash("The last one that it could not apply, or went back from."),
            "error": { "type": ["string", "null"], "maxLength": MAX_ERROR_BYTES, "description": "Why." },
            "limited": { "type": "array", "maxItems": MAX_LIMITED, "items": { "type": "string", "maxLength": MAX_PATTERN_BYTES }, "description": "Keys that the host's own limits kept from their value." },
        },
    })
}

fn configuration_answer() -> Value {
    json!({
        "type": "object",
        "required": ["hash", "configuration"],
        "properties": {
            "hash": text("Of the configuration: SHA-256, hex."),
            "configuration": reference("Configuration"),
        },
    })
}

fn recover_request() -> Value {
    json!({
        "type": "object",
        "required": ["version", "certificate_pem", "csr_pem", "nonce", "signature"],
        "properties": {
            "version": { "type": "integer", "format": "int32", "description": "Protocol version of the agent: 1." },
            "certificate_pem": text("The host's last certificate, PEM; it may have expired."),
            "csr_pem": text("PKCS #10, PEM, P-256, of a new key."),
            "nonce": text("From `GET /v1/certificate/nonce`."),
            "signature": text("ECDSA P-256 with SHA-256 by the last certificate's key, ASN.1, base64, over `procfleet-recover-v1`, `certificate_pem`, `csr_pem` and `nonce`, joined by NUL."),
        },
    })
}

fn host_facts() -> Value {
    json!({
        "type": "object",
        "description": "What a host says of itself: attributes, never identity.",
        "required": ["host_name", "kernel_release", "host_arch", "agent_version"],
        "properties": {
            "host_name": text("`uname` nodename."),
            "machine_id_hash": text("SHA-256 of `/etc/machine-id` and an application id, hex."),
            "product_uuid_hash": text("SHA-256 of the firmware's id (DMI product UUID) and an application id, hex."),
            "os_description": text("`PRETTY_NAME` of `/etc/os-release`."),
            "kernel_release": text("`uname` release."),
            "host_arch": text("`uname` machine."),
            "agent_version": text("Version of the agent."),
        },
    })
}

fn records() -> Value {
    json!({
        "type": "string",
        "description": "One JSON object per line, each compressed as a zstd frame of its own \
            (`content-encoding: zstd`) or not at all: consecutive records of one stream. A line is \
            `{\"report\": {…}}` or `{\"gap\": {…}}`; the types `Report` and `Gap` of the crate \
            `shared-model` are the specification, field by field.",
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::Serialize;
    use shared_model::*;
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    fn keys(value: &Value) -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    }

    fn check(value: &impl Serialize, schema: &Value) {
        let value = serde_json::to_value(value).unwrap();
        let (has, says) = (keys(&value), keys(&schema["properties"]));
        assert_eq!(has, says);
        for required in schema["required"].as_array().unwrap() {
            assert!(has.contains(required.as_str().unwrap()), "{required}");
        }
        for (key, property) in schema["properties"].as_object().unwrap() {
            let fits = match property["type"].as_str() {
                Some("string") => value[key].is_string(),
                Some("integer") => value[key].is_u64(),
                Some("array") => value[key].is_array(),
                _ => property["$ref"].is_string(),
            };
            assert!(fits, "{key}");
        }
    }

    #[test]
    fn schemas_say_what_the_types_write() {
        add_to(&mut Components::new());
        let field = FieldError { field: "f".into(), detail: "d".into() };
        check(&field, &field_error());
        let code = ProblemCode::InvalidReport;
        let rejected =
            RejectedReport { sequence: 1, code, detail: "d".into(), errors: vec![field.clone()] };
        check(&rejected, &rejected_report());
        let mut full = Problem::new(code, "d");
        full.errors.push(field);
        full.acknowledged_sequence = Some(1);
        full.rejected.push(rejected.clone());
        full.request_id = Some("r".into());
        check(&full, &problem());
        let now = OffsetDateTime::UNIX_EPOCH;
        let answer = ReportsAnswer {
            stream_id: Uuid::nil(),
            acknowledged_sequence: 1,
            accepted: 1,
            duplicates: 0,
            rejected: vec![rejected],
            next_send_after_ms: Some(1),
            server_time: now,
        };
        check(&answer, &reports_answer());
        let answer =
            ConfigurationAnswer { hash: "h".into(), configuration: Configuration::default() };
        check(&answer, &configuration_answer());
        let written = serde_json::to_value(ConfigurationStatus::default()).unwrap();
        assert_eq!(keys(&written), keys(&configuration_status()["properties"]));
        // Every key that is known is described, and no other.
        let every = json!({
            "interval_ms": 10_000,
            "profile": { "cpu_cores": 0.5, "memory_bytes": 1, "disk_bytes_per_second": 1,
                "network_bytes_per_second": 1, "top": 1, "always_keep": ["a"], "keep_all": true },
            "redaction": { "patterns": ["a"] },
            "budget": { "cpu_cores": 0.5, "memory_bytes": 1 },
            "collect": { "disabled": ["a"] },
            "filesystem": { "exclude_types": ["a"], "exclude_mount_points": ["a"] },
            "block_device": { "exclude": ["a"] },
            "network_interface": { "exclude": ["a"] },
        });
        let read: Configuration = serde_json::from_value(every.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), every);
        let described = configuration();
        assert_eq!(keys(&every), keys(&described["properties"]));
        for (name, table) in every.as_object().unwrap().iter().filter(|(_, v)| v.is_object()) {
            assert_eq!(keys(table), keys(&described["properties"][name]["properties"]), "{name}");
        }
        check(&GoodbyeNote { reason: Goodbye::Restart }, &goodbye_note());
        let facts = HostFacts {
            machine_id_hash: Some("m".into()),
            product_uuid_hash: Some("p".into()),
            os_description: Some("o".into()),
            ..HostFacts::default()
        };
        check(&facts, &host_facts());
        check(&EnrollRequest { version: 1, csr_pem: "c".into(), facts }, &enroll_request());
        let response = EnrollResponse {
            host_id: Uuid::nil(),
            certificate_chain_pem: "c".into(),
            ca_bundle_pem: "c".into(),
            not_after: now,
            renew_after: now,
            server_time: now,
            endpoints: vec![],
        };
        check(&response, &enroll_response());
    }
}
