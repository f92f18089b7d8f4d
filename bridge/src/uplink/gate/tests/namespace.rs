//! Over a link of one's own, made of two network namespaces: what the kernel counted against what
//! the gate did, and a link that swallows everything.
//!
//! A test runs itself again inside a namespace, where it is root, and there once more as the
//! broker at the other end of a pair of interfaces. Where that is not allowed it says so.

use super::*;
use std::fs;
use std::process::{Child, Command, Stdio};

/// Which part a process has in the play.
const ROLE: &str = "GATE_TEST_ROLE";
const BROKER: (&str, u16) = ("10.81.0.2", 9092);
const FAR: &str = "02:00:00:00:51:02";
/// An Ethernet header, which `/proc/net/dev` counts and we do not.
const ETHERNET_BYTES: u64 = 14;

/// Runs `client` in a namespace that has a link to a broker which reads all it is sent.
fn over_a_link(test: &str, client: impl Future<Output = ()>) {
    match std::env::var(ROLE).as_deref() {
        Ok("broker") => block_on(sink()),
        Ok("client") => block_on(client),
        _ => {
            let allowed = Command::new("unshare").args(["-rn", "ip", "link"]).output();
            if !allowed.is_ok_and(|it| it.status.success()) {
                return eprintln!("{test}: not run, no network namespace or `ip` to be had here");
            }
            let name = format!("uplink::gate::tests::namespace::{test}");
            let again = Command::new("unshare")
                .arg("-rn")
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", &name, "--nocapture"])
                .env(ROLE, "client")
                .output();
            let again = again.unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let said = text(&again.stdout) + &text(&again.stderr);
            assert!(
                again.status.success() && said.contains("1 passed"),
                "{said}"
            );
        }
    }
}

fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work);
}

async fn sink() {
    let listener = TcpListener::bind(("0.0.0.0", BROKER.1)).await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
    }
}

/// The other end, in a namespace of its own that ends with this.
struct Link(Child);

impl Link {
    async fn up(test: &str) -> Self {
        let name = format!("uplink::gate::tests::namespace::{test}");
        let broker = Command::new("unshare")
            .arg("-n")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &name])
            .env(ROLE, "broker")
            .stdout(Stdio::null())
            .spawn();
        let link = Self(broker.unwrap());
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", link.0.id());
        while fs::read_link(&theirs).is_ok_and(|it| it == own) {
            sleep(Duration::from_millis(10)).await;
        }
        let there = link.0.id().to_string();
        ip("link set lo up");
        ip(&format!(
            "link add near type veth peer name far address {FAR}"
        ));
        ip(&format!("link set far netns {there}"));
        ip("addr add 10.81.0.1/24 dev near");
        ip("link set near up");
        link.ip("addr add 10.81.0.2/24 dev far");
        link.ip("link set far up");
        // Whoever does not answer any more shall not be found out by that.
        ip(&format!(
            "neigh replace 10.81.0.2 lladdr {FAR} dev near nud permanent"
        ));
        while TcpStream::connect(BROKER).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
        link
    }

    /// Everything that is sent from now on is lost, and nobody says so.
    fn swallow(&self) {
        self.ip("addr del 10.81.0.2/24 dev far");
    }

    fn ip(&self, arguments: &str) {
        self.run(&[&["ip"][..], &arguments.split(' ').collect::<Vec<_>>()].concat());
    }

    /// At the other end.
    fn run(&self, command: &[&str]) -> String {
        let there = self.0.id().to_string();
        output(
            Command::new("nsenter")
                .args(["-n", "-t", &there])
                .args(command),
        )
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn ip(arguments: &str) {
    output(Command::new("ip").args(arguments.split(' ')));
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

async fn connect(ticket: &Ticket) -> TcpStream {
    let mut stream = TcpStream::connect(ticket.address).await.unwrap();
    let target = Target {
        host: Host::Address(BROKER.0.parse().unwrap()),
        port: BROKER.1,
    };
    let login = Some((ticket.user.as_str(), ticket.password.as_str()));
    socks::connect(&mut stream, &target, login).await.unwrap();
    stream
}

/// Bytes sent and received over the link as the kernel has counted them.
fn counted() -> (u64, u64) {
    let text = fs::read_to_string("/proc/net/dev").unwrap();
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("near:"));
    let numbers = line.unwrap().split_whitespace();
    let numbers: Vec<u64> = numbers.map(|number| number.parse().unwrap()).collect();
    let bytes = |at: usize| numbers[at] - numbers[at + 1] * ETHERNET_BYTES;
    (bytes(8), bytes(0))
}

#[test]
fn what_is_counted_is_what_the_kernel_sent() {
    let test = "what_is_counted_is_what_the_kernel_sent";
    over_a_link(test, async {
        let _link = Link::up(test).await;
        for (kbit, payload, writes) in [(512, 1_200, 100), (512, 64 * 1_024, 2), (4_000, 200, 300)]
        {
            let class = LinkClass {
                bandwidth: BitRate::new(kbit * 1_000),
                ..LinkClass::new("satellite")
            };
            let world = World::new(class);
            let (sent_before, received_before) = counted();
            let mut near = connect(&world.ticket(1, 1)).await;
            for bytes in pattern(payload).chunks(payload).cycle().take(writes) {
                near.write_all(bytes).await.unwrap();
                if payload < 1_000 {
                    sleep(Duration::from_millis(2)).await;
                }
            }
            near.shutdown().await.unwrap();
            assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
            sleep(Duration::from_millis(200)).await;
            let (sent, received) = counted();
            let (sent, received) = (sent - sent_before, received - received_before);
            let ours = world.snapshot();
            println!(
                "{payload} x {writes}: sent {} of {sent}, received {} of {received}",
                ours.sent_bytes_total, ours.received_bytes_total
            );
            let ratio = ours.sent_bytes_total as f64 / sent as f64;
            assert!((0.98..1.05).contains(&ratio), "sent: {ratio}");
            let all = (ours.sent_bytes_total + ours.received_bytes_total) as f64;
            let ratio = all / (sent + received) as f64;
            assert!((0.97..1.10).contains(&ratio), "both: {ratio}");
        }
    });
}

/// Neither a connection that sends nor one that only waits is told anything by such a link.
#[test]
fn a_link_that_swallows_everything_is_noticed() {
    let test = "a_link_that_swallows_everything_is_noticed";
    over_a_link(test, async {
        let link = Link::up(test).await;
        let dead_after = Duration::from_secs(3);
        let class = LinkClass {
            dead_after,
            ..LinkClass::new("satellite")
        };
        let world = World::new(class);
        let ticket = world.ticket(1, 1);
        let (mut sends, mut waits) = (connect(&ticket).await, connect(&ticket).await);
        sends.write_all(b"before").await.unwrap();
        // Probes are answered, so silence alone does not end a connection.
        let ended = timeout(dead_after * 2, waits.read_u8()).await;
        assert!(ended.is_err(), "{ended:?}");
        link.swallow();
        let begun = Instant::now();
        sends.write_all(&pattern(10_000)).await.unwrap();
        let noticed = async {
            tokio::join!(
                async { (sends.read_u8().await.unwrap_err().kind(), begun.elapsed()) },
                async { (waits.read_u8().await.unwrap_err().kind(), begun.elapsed()) },
            )
        };
        let noticed = timeout(Duration::from_secs(30), noticed)
            .await
            .expect("noticed at all");
        println!("noticed: {noticed:?}");
        let (sent, waited) = noticed;
        for (kind, after) in [sent, waited] {
            assert_eq!(kind, io::ErrorKind::ConnectionReset);
            assert!(
                after >= dead_after / 2 && after < dead_after * 3,
                "{after:?}"
            );
        }
        let told = world.snapshot().last_error.unwrap();
        assert!(told.contains("has acknowledged nothing for 3 s"), "{told}");
        // A dial is lost too, and ends in time.
        let class = &world.settings.borrow().class.clone();
        let within = class.connect_within + Duration::from_secs(2);
        let mut stream = TcpStream::connect(ticket.address).await.unwrap();
        let target = Target {
            host: Host::Address(BROKER.0.parse().unwrap()),
            port: BROKER.1,
        };
        let login = Some((ticket.user.as_str(), ticket.password.as_str()));
        let dial = socks::connect(&mut stream, &target, login);
        let dialled = timeout(within, dial).await.expect("ends in time");
        assert!(dialled.unwrap_err().to_string().contains("did not answer"));
    });
}
