//! What our certificates look like (RFC 5280).

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Authority, Purpose};
use crate::auth::agent::HOST_URN_PREFIX;
use crate::auth::secret::hex;

/// Life of an authority.
pub const AUTHORITY_LIFE: Duration = Duration::days(3650);
/// How long before now a host's certificate begins: servers' clocks differ.
pub const HOST_BACKDATE: Duration = Duration::hours(1);
/// Life of the agent door's certificate.
pub const SERVER_LIFE: Duration = Duration::days(30);
/// How long before now it begins: it is checked by the clocks of a whole fleet.
pub const SERVER_BACKDATE: Duration = Duration::hours(24);

/// Bridges shown: a host may have missed so many rotations.
const MAX_BRIDGES: u8 = 3;

const PEM_END: &str = "-----END CERTIFICATE-----\n";

/// A host's certificate.
pub struct HostCertificate {
    /// Leaf and authority, PEM.
    pub chain_pem: String,
    /// Hex.
    pub serial: String,
    /// Beginning.
    pub not_before: OffsetDateTime,
    /// End.
    pub not_after: OffsetDateTime,
    /// Who signed it.
    pub authority_id: Uuid,
}

pub(super) fn authority_parameters(
    purpose: Purpose,
    now: OffsetDateTime,
) -> Result<CertificateParams, rcgen::Error> {
    let (name, usage) = match purpose {
        Purpose::Client => ("Procfleet client authority", ExtendedKeyUsagePurpose::ClientAuth),
        Purpose::Server => ("Procfleet server authority", ExtendedKeyUsagePurpose::ServerAuth),
    };
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    let below = match purpose {
        Purpose::Client => 0,
        Purpose::Server => MAX_BRIDGES,
    };
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.extended_key_usages = vec![usage];
    parameters.serial_number = Some(random_serial()?);
    parameters.not_before = now - SERVER_BACKDATE;
    parameters.not_after = now + AUTHORITY_LIFE;
    Ok(parameters)
}

/// 128 random bits; the first is 0, so that the number is positive, the second 1, so that all have
/// one length.
fn random_serial() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn leaf_parameters(
    usage: ExtendedKeyUsagePurpose,
    name: &str,
) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![usage];
    parameters.use_authority_key_identifier_extension = true;
    parameters.serial_number = Some(random_serial()?);
    Ok(parameters)
}

impl Authority {
    /// The bridge from this authority to the one that comes after it, PEM: who trusts this one trusts that one. With
    /// it the bridges that lead here, as many as are shown.
    pub(super) fn bridge_to(
        &self,
        mut next: CertificateParams,
        key: &KeyPair,
    ) -> Result<String, rcgen::Error> {
        next.serial_number = Some(random_serial()?);
        next.use_authority_key_identifier_extension = true;
        let first = next.signed_by(key, &self.issuer)?.pem();
        let before = self.bridge_pem.split_inclusive(PEM_END).take(usize::from(MAX_BRIDGES) - 1);
        Ok([first.as_str()].into_iter().chain(before).collect())
    }

    /// A certificate for the agent door, or a proxy before it, under `names` (DNS names and IP
    /// addresses).
    pub fn issue_server(
        &self,
        names: &[String],
        key: &KeyPair,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<Certificate, rcgen::Error> {
        let common_name = names.first().map_or("procfleet-server", String::as_str);
        let mut parameters = leaf_parameters(ExtendedKeyUsagePurpose::ServerAuth, common_name)?;
        parameters.subject_alt_names = names
            .iter()
            .map(|name| {
                Ok(match name.parse() {
                    Ok(address) => SanType::IpAddress(address),
                    Err(_) => SanType::DnsName(name.as_str().try_into()?),
                })
            })
            .collect::<Result<_, rcgen::Error>>()?;
        parameters.not_before = now - SERVER_BACKDATE;
        parameters.not_after = now + life;
        parameters.signed_by(key, &self.issuer)
    }

    /// A client certificate for a host's key, of which nothing but the key is the host's choice.
    /// Its `life` should be longer than hosts are commonly switched off.
    pub fn issue_host(
        &self,
        host_id: Uuid,
        key: &SubjectPublicKeyInfo,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<HostCertificate, rcgen::Error> {
        let mut parameters =
            leaf_parameters(ExtendedKeyUsagePurpose::ClientAuth, &host_id.to_string())?;
        let urn = format!("{HOST_URN_PREFIX}{host_id}");
        parameters.subject_alt_names = vec![SanType::URI(urn.as_str().try_into()?)];
        parameters.not_before = now - HOST_BACKDATE;
        parameters.not_after = now + life;
        let leaf = parameters.signed_by(key, &self.issuer)?;
        let serial = parameters.serial_number.as_ref().map(SerialNumber::to_bytes);
        Ok(HostCertificate {
            chain_pem: format!("{}{}", leaf.pem(), self.certificate_pem),
            serial: hex(&serial.unwrap_or_default()),
            not_before: parameters.not_before,
            not_after: parameters.not_after,
            authority_id: self.authority_id,
        })
    }
}
