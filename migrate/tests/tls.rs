//! Migrations over real mutual TLS on the loopback interface, and hosts that do not trust each other.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::ends::{Life, World};
use common::hosts::Hosts;
use fastmig_migrate::cancel::Cancel;
use fastmig_migrate::options::Compression;
use fastmig_migrate::report::{Outcome, Report};
use fastmig_migrate::transport::tls::{accept, TlsDialer, ALPN};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        Arc::new(roots)
    }

    fn certificate(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn server(&self, name: &str) -> Arc<ServerConfig> {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots(), Arc::new(default_provider()));
        let (chain, key) = self.certificate(name);
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
        let builder = builder.with_client_cert_verifier(verifier.build().unwrap());
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Arc::new(config)
    }

    /// A client of `own` that trusts us.
    fn client(&self, own: Option<&Self>) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
        let builder = builder.with_root_certificates(self.roots());
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let (chain, key) = own.certificate("a");
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Arc::new(config)
    }
}

/// A destination that listens; nobody ends it but the test's process.
fn listen(hosts: &Arc<Hosts>, config: &Arc<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (hosts, config) = (Arc::clone(hosts), Arc::clone(config));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (hosts, config) = (Arc::clone(&hosts), Arc::clone(&config));
            thread::spawn(move || {
                if let Ok(stream) = accept(stream.unwrap(), config, Duration::from_secs(5)) {
                    hosts.destination().unwrap().serve(Box::new(stream), "a");
                }
            });
        }
    });
    address
}

fn migrate(hosts: &Arc<Hosts>, dialer: &TlsDialer, compression: Compression) -> Report {
    let mut plan = hosts.plan();
    plan.options.compression = compression;
    plan.options.limits.frozen = Duration::from_secs(120);
    hosts.migrate_over(dialer, &plan, &Cancel::default())
}

fn dialer(address: SocketAddr, name: &'static str, config: Arc<ClientConfig>) -> TlsDialer {
    let name = ServerName::try_from(name).unwrap();
    TlsDialer { addresses: vec![address], name, config, limit: Duration::from_secs(5) }
}

#[test]
fn an_application_moves_over_tls() {
    let authority = Authority::new();
    let world = World::new(21, 8, 12 << 20);
    let hosts = Hosts::new(&world);
    let address = listen(&hosts, &authority.server("b"));
    let report =
        migrate(&hosts, &dialer(address, "b", authority.client(Some(&authority))), Compression::Auto);
    assert_eq!(report.outcome, Outcome::Moved, "{report:#?}");
    assert_eq!(world.lives(), (Life::Standby, Life::Running));
}

fn refused(name: &'static str, client: impl FnOnce(&Authority, &Authority) -> Arc<ClientConfig>) -> String {
    let (ours, strangers) = (Authority::new(), Authority::new());
    let world = World::new(22, 1, 1 << 20);
    let hosts = Hosts::new(&world);
    let address = listen(&hosts, &ours.server("b"));
    let report = migrate(&hosts, &dialer(address, name, client(&ours, &strangers)), Compression::Auto);
    assert_eq!(report.outcome, Outcome::Stayed);
    assert_eq!(world.lives(), (Life::Running, Life::Standby));
    assert!(hosts.destination().unwrap().journal.history().is_empty());
    report.reason.unwrap()
}

#[test]
fn a_wrong_certificate_is_refused() {
    // TLS 1.3 lets a client finish before the server has judged it: the refusal comes with the first answer.
    let reason = refused("b", |ours, strangers| ours.client(Some(strangers)));
    assert!(reason.contains("alert") || reason.contains("closed"), "{reason}");
    let reason = refused("b", |ours, _| ours.client(None));
    assert!(reason.contains("alert") || reason.contains("closed"), "{reason}");
}

#[test]
fn a_stranger_as_destination_is_refused() {
    let reason = refused("b", |ours, strangers| strangers.client(Some(ours)));
    assert!(reason.contains("invalid peer certificate"), "{reason}");
    let reason = refused("c", |ours, _| ours.client(Some(ours)));
    assert!(reason.contains("not valid for name"), "{reason}");
}

#[test]
fn another_protocol_on_the_same_port_is_refused() {
    let reason = refused("b", |ours, _| {
        let mut config = ClientConfig::clone(&ours.client(Some(ours)));
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    });
    assert!(reason.contains("protocol") || reason.contains("alert"), "{reason}");
}

/// `cargo test --release -p fastmig-migrate --test tls -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn a_gibibyte_over_tls() {
    let authority = Authority::new();
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd, Compression::Auto] {
        let hosts = Hosts::new(&World::new(23, 8, 228 << 20));
        let address = listen(&hosts, &authority.server("b"));
        let report = migrate(&hosts, &dialer(address, "b", authority.client(Some(&authority))), compression);
        assert_eq!(report.outcome, Outcome::Moved, "{report:#?}");
        let frozen = report.frozen_ms.unwrap();
        println!(
            "{compression:?}: {} MiB of memory, {} MiB on the wire, frozen {frozen} ms, {} MiB/s, chunks {:?}",
            report.bytes.memory >> 20,
            report.bytes.wire >> 20,
            report.bytes.memory * 1000 / (frozen.max(1) << 20),
            report.chunks,
        );
    }
}
