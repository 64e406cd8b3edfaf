//! Who is let in, and who is not.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::http::{ask, connect, request};
use common::{identity, Daemon};
use fastmig_api::{Endpoint, Role as Needed};
use fastmigd::pki::authority::Authority;
use fastmigd::pki::identity::Identity;
use fastmigd::pki::role::Role;
use fastmigd::pki::{tls, Place};
use nix::fcntl::{Flock, FlockArg};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// One call over TLS, as `who`.
fn call(daemon: &Daemon, who: &Identity, method: &str, path: &str) -> io::Result<common::Answer> {
    let config = tls::client(who, tls::HTTP1).unwrap();
    let mut stream = connect(daemon.address, "host-a", config)?;
    ask(&mut stream, &request(method, path, &[], b""))
}

#[test]
fn the_socket_is_roots_alone() {
    let daemon = Daemon::start();
    let metadata = fs::metadata(daemon.socket()).unwrap();
    assert_eq!((metadata.mode() & 0o777, metadata.uid()), (0o600, 0));
    assert_eq!(fs::metadata(daemon.path("run")).unwrap().mode() & 0o777, 0o700);

    // Even where the files would let somebody else through, the kernel says who it is.
    for (path, mode) in
        [(daemon.root.path().to_owned(), 0o755), (daemon.path("run"), 0o755), (daemon.socket(), 0o666)]
    {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let curl = |uid: u32| {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--max-time", "10", "--unix-socket"])
            .arg(daemon.socket())
            .arg("http://x/healthz");
        command.uid(uid).output()
    };
    let Ok(root) = curl(0) else {
        println!("skipped: there is no curl here");
        return;
    };
    assert!(root.status.success());
    assert!(!curl(65534).unwrap().status.success());
    assert!(daemon.call("GET", "/metrics", "").text().contains(r#"refused_total{reason="user"} 1"#));
}

#[test]
fn nobody_listens_without_certificates() {
    let daemon = Daemon::prepare();
    daemon.configure(&format!("listen = \"{}\"", daemon.address));
    let output = daemon.try_command(&[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("nobody is served without one"), "{error}");
    assert!(!daemon.socket().exists());
}

#[test]
fn two_daemons_do_not_answer_for_the_same_containers() {
    let daemon = Daemon::start();
    let error = String::from_utf8(daemon.try_command(&[]).stderr).unwrap();
    assert!(error.contains("another fastmigd"), "{error}");
    assert_eq!(daemon.call("GET", "/healthz", "").status, 200);
}

#[test]
fn a_daemon_waits_for_what_its_predecessor_still_holds() {
    let mut daemon = Daemon::prepare();
    let directory = daemon.path("lib");
    fs::DirBuilder::new().mode(0o700).create(&directory).unwrap();
    let file = fs::File::create(directory.join("daemon.lock")).unwrap();
    let held = Flock::lock(file, FlockArg::LockExclusive).unwrap();
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        drop(held);
    });
    let begun = Instant::now();
    daemon.up();
    assert!(begun.elapsed() >= Duration::from_millis(700), "it began beside the other");
    release.join().unwrap();
}

#[test]
fn strangers_are_refused() {
    let daemon = Daemon::start_cluster();
    let member = daemon.member("alice", Role::Admin);
    assert_eq!(call(&daemon, &member, "GET", "/healthz").unwrap().status, 200);

    // Without a certificate.
    let mut roots = RootCertStore::empty();
    roots.add(member.ca.clone()).unwrap();
    let none =
        ClientConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let asked = connect(daemon.address, "host-a", Arc::new(none))
        .and_then(|mut stream| ask(&mut stream, &request("GET", "/healthz", &[], b"")));
    assert!(asked.is_err(), "{asked:?}");

    // With one of somebody else's authority, however it calls itself.
    let foreign = tempfile::tempdir().unwrap();
    let authority = Authority::make(&Place::at(foreign.path())).unwrap();
    let mut stranger = identity(&authority, &foreign.path().join("x"), "alice", Role::Admin);
    stranger.ca = member.ca.clone();
    assert!(call(&daemon, &stranger, "GET", "/healthz").is_err());

    // Plain HTTP.
    let mut plain = std::net::TcpStream::connect(daemon.address).unwrap();
    plain.set_read_timeout(Some(common::LIMIT)).unwrap();
    assert!(ask(&mut plain, &request("GET", "/healthz", &[], b"")).is_err());
}

#[test]
fn each_role_is_held_to_the_table() {
    let daemon = Daemon::start_cluster();
    for (role, may) in [
        (Role::Reader, Needed::Read),
        (Role::Operator, Needed::Checkpoint),
        (Role::Node, Needed::Migrate),
        (Role::Admin, Needed::Admin),
    ] {
        let who = daemon.member("somebody", role);
        for endpoint in Endpoint::ALL.into_iter().filter(|endpoint| *endpoint != Endpoint::Events) {
            let route = endpoint.route();
            let answer = call(&daemon, &who, route.method.name(), &endpoint.path(&["nothing"])).unwrap();
            assert_eq!(answer.status == 403, may < route.role, "{role} {endpoint:?}: {answer:?}");
            if may >= route.role && !endpoint.path(&["nothing"]).contains("nothing") {
                assert_eq!(answer.status, 200, "{role} {endpoint:?}: {answer:?}");
            }
        }
    }
}

#[test]
fn only_nodes_take_part_in_migrations() {
    let daemon = Daemon::start_cluster();
    // What was refused is closed; what was let in waits for a first message.
    let is_let_in = |role: Role| {
        let config = tls::client(&daemon.member("peer", role), tls::MIGRATE).unwrap();
        let mut stream = connect(daemon.address, "host-a", config).unwrap();
        stream.sock.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let read = stream.read(&mut [0; 1]);
        matches!(read, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    };
    for (role, expected) in
        [(Role::Node, true), (Role::Admin, false), (Role::Operator, false), (Role::Reader, false)]
    {
        assert_eq!(is_let_in(role), expected, "{role}");
    }
}

#[test]
fn a_host_joins_by_a_token_once() {
    let first = Daemon::start_cluster();
    let second = Daemon::prepare();
    let token = first.command(&["token"]);
    let address = second.address.to_string();
    let join = |daemon: &Daemon, token: &str, name: &str| {
        let output = daemon.try_command(&["join", token, "--name", name, "--address", &address]);
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    // The name is taken: the token is not used up by that.
    let (joined, error) = join(&second, &token, "host-a");
    assert!(!joined && error.contains("is taken"), "{error}");
    assert!(join(&second, &token, "host-b").0);
    for daemon in [&first, &second] {
        let peers = daemon.command(&["peers"]);
        assert!(peers.contains("host-a\t") && peers.contains(&format!("host-b\t{address}")), "{peers}");
    }
    assert_eq!(fs::metadata(second.path("lib/pki/key.pem")).unwrap().mode() & 0o777, 0o600);
    assert!(!second.path("lib/pki/ca.key").exists());

    let third = Daemon::prepare();
    let (joined, error) = join(&third, &token, "host-c");
    assert!(!joined && error.contains("used up"), "{error}");
    let expired = first.command(&["token", "--ttl", "0s"]);
    let (joined, error) = join(&third, &expired, "host-c");
    assert!(!joined && error.contains("expired"), "{error}");
    assert!(!third.path("lib/pki").exists());
}

#[test]
fn a_token_trusts_one_authority() {
    let (real, false_one) = (Daemon::start_cluster(), Daemon::start_cluster());
    let token = real.command(&["token"]);
    // Whoever answers at the address instead learns nothing: it has another authority.
    let redirected = token.replace(&real.address.to_string(), &false_one.address.to_string());
    let output = Daemon::prepare().try_command(&["join", &redirected, "--name", "host-b"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("UnknownIssuer"), "{error}");
    assert!(!false_one.log().contains("refused"), "it was asked:\n{}", false_one.log());
}

#[test]
fn an_operator_gets_files_of_its_own() {
    let daemon = Daemon::start_cluster();
    let token = daemon.command(&["token", "--role", "operator"]);
    let out = daemon.path("alice");
    daemon.command(&["join", &token, "--name", "alice", "--out", out.to_str().unwrap()]);
    let files = ["ca.pem", "certificate.pem", "key.pem"].map(|file| out.join(file));
    let alice = Identity::read(&files[0], &files[1], &files[2]).unwrap();
    assert_eq!(call(&daemon, &alice, "GET", "/v1/containers").unwrap().status, 200);
    assert_eq!(call(&daemon, &alice, "POST", "/v1/containers/x/migrate").unwrap().status, 403);
}

#[test]
fn certificates_of_your_own_authority_serve_as_well() {
    let mut daemon = Daemon::prepare();
    let authority = Authority::make(&Place::at(daemon.root.path())).unwrap();
    let directory = daemon.path("own");
    identity(&authority, &directory, "host-a", Role::Node);
    let file = |name: &str| directory.join(name).display().to_string();
    daemon.configure(&format!(
        "listen = \"{}\"\nca = {:?}\ncertificate = {:?}\nkey = {:?}",
        daemon.address,
        file("ca.pem"),
        file("certificate.pem"),
        file("key.pem")
    ));
    daemon.up();
    let who = identity(&authority, &daemon.path("who"), "somebody", Role::Reader);
    assert_eq!(call(&daemon, &who, "GET", "/healthz").unwrap().json()["host"], "host-a");
    assert!(!daemon.try_command(&["token"]).status.success(), "tokens of an authority that is not ours");
}
