//! What the cap does to real connections. The bounds from above cannot fail on a busy machine;
//! those from below leave it half of the time.

use super::*;

/// The bytes in the kernel's hands on both sides of the gate, when it has let none through yet.
const BUFFERED_MAX: usize = 8 * 1024 * 1024;

fn capped(kbit: u64) -> LinkClass {
    LinkClass {
        bandwidth: BitRate::new(kbit * 1_000),
        ..LinkClass::new("satellite")
    }
}

/// Sends through `near` for ever.
fn flood(mut near: TcpStream) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let bytes = pattern(64 * 1024);
        while near.write_all(&bytes).await.is_ok() {}
    })
}

/// How much arrives within `time`, and how long that really was.
async fn arriving(far: &mut TcpStream, time: Duration) -> (u64, Duration) {
    let (mut buffer, mut bytes, begun) = (vec![0; 64 * 1024], 0, Instant::now());
    while let Some(left) = time.checked_sub(begun.elapsed()) {
        if let Ok(read) = timeout(left, far.read(&mut buffer)).await {
            bytes += read.unwrap() as u64;
        }
    }
    (bytes, begun.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cap_holds_on_a_satellite_and_on_a_quick_link() {
    for kbit in [256, 8_000] {
        let world = World::new(capped(kbit));
        let begun = Instant::now();
        let (near, mut far) = connection(&world.ticket(1, 1)).await;
        let flood = flood(near);
        let (payload, _) = arriving(&mut far, Duration::from_secs(3)).await;
        let sent = world.snapshot().sent_bytes_total;
        let took = begun.elapsed().as_secs_f64();
        let allowed = kbit as f64 * 125.0 * took;
        // Within 5 % of the cap, and the burst of 20 ms or one chunk.
        let burst = (allowed / took * 0.02).max(1_500.0) * 2.0;
        assert!(
            sent as f64 <= allowed * 1.05 + burst,
            "{kbit} kbit/s: {sent} of {allowed}"
        );
        assert!(
            sent as f64 >= allowed * 0.5,
            "{kbit} kbit/s: only {sent} of {allowed}"
        );
        assert!(payload <= sent, "{payload} arrived, {sent} were counted");
        flood.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receiving_has_a_cap_of_its_own() {
    let class = LinkClass {
        bandwidth_receive: BitRate::new(800_000),
        ..LinkClass::new("satellite")
    };
    let world = World::new(class);
    let (mut near, far) = connection(&world.ticket(1, 1)).await;
    let flood = flood(far);
    let (bytes, took) = arriving(&mut near, Duration::from_secs(2)).await;
    let allowed = 100_000.0 * took.as_secs_f64();
    assert!(
        bytes as f64 <= allowed * 1.05 + 4_000.0,
        "{bytes} of {allowed}"
    );
    assert!(bytes as f64 >= allowed * 0.5, "only {bytes} of {allowed}");
    flood.abort();
}

/// An alert that is said while bulk fills the link arrives after what was on the wire, and not
/// after what bulk has waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_overtakes_bulk() {
    let world = World::new(capped(256));
    let (bulk, mut bulk_far) = connection(&world.ticket(1, 1)).await;
    let (mut alert, mut alert_far) = connection(&world.ticket(0, 1)).await;
    let flood = flood(bulk);
    arriving(&mut bulk_far, Duration::from_millis(500)).await;
    for _ in 0..5 {
        let before = world.snapshot().sent_bytes_total;
        alert.write_all(&[7; 200]).await.unwrap();
        alert_far.read_exact(&mut [0; 200]).await.unwrap();
        let ahead = world.snapshot().sent_bytes_total - before;
        // One chunk that was granted, the alert itself, and what a late timer of a busy machine
        // lets through; bulk has 100,000 bytes waiting.
        assert!(
            ahead < 8_000,
            "{ahead} bytes went until the alert was there"
        );
        arriving(&mut bulk_far, Duration::from_millis(70)).await;
    }
    flood.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_share_a_priority() {
    let world = World::new(capped(1_000));
    let (heavy, mut heavy_far) = connection(&world.ticket(1, 3)).await;
    let (light, mut light_far) = connection(&world.ticket(1, 1)).await;
    let floods = [flood(heavy), flood(light)];
    let time = Duration::from_secs(3);
    let heard = tokio::join!(
        arriving(&mut heavy_far, time),
        arriving(&mut light_far, time)
    );
    let ((heavy, _), (light, _)) = heard;
    let share = heavy as f64 / light as f64;
    assert!((2.5..3.5).contains(&share), "{heavy} : {light}");
    floods.iter().for_each(|flood| flood.abort());
}

/// While the cap holds bytes back the client is not read, so that it knows what is not sent yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_go_stays_with_the_client() {
    let world = World::new(capped(64));
    let (near, mut far) = connection(&world.ticket(1, 1)).await;
    let mut written = 0;
    let bytes = pattern(64 * 1024);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        match near.try_write(&bytes) {
            Ok(count) => written += count,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
    assert!(written < BUFFERED_MAX, "{written} taken");
    let sent = world.snapshot().sent_bytes_total;
    assert!(sent < 20_000, "{sent} sent in a second of 64 kbit/s");
    // A cap that is lifted lets all of it go.
    world.set(|class| class.bandwidth = None);
    let mut heard = vec![0; written];
    far.read_exact(&mut heard).await.unwrap();
}
