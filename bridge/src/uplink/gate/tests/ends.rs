//! When connections end, and why none is made.

use super::*;

/// Reads until the gate hangs up.
async fn ended(near: &mut TcpStream) -> io::ErrorKind {
    let read = timeout(Duration::from_secs(10), near.read_u8());
    read.await.expect("the gate hangs up").unwrap_err().kind()
}

#[tokio::test]
async fn a_reset_ends_what_is_open_and_lets_new_ones_in() {
    let world = World::new(LinkClass::new("harbour"));
    let ticket = world.ticket(1, 1);
    let (mut near, _far) = connection(&ticket).await;
    world.gate.reset();
    assert_eq!(ended(&mut near).await, io::ErrorKind::ConnectionReset);
    let (mut near, mut far) = connection(&ticket).await;
    near.write_all(b"again").await.unwrap();
    far.read_exact(&mut [0; 5]).await.unwrap();
}

#[tokio::test]
async fn another_link_class_ends_the_connections_of_the_last() {
    let world = World::new(LinkClass::new("harbour"));
    let ticket = world.ticket(1, 1);
    let (mut near, mut far) = connection(&ticket).await;
    // A new cap alone does not.
    world.set(|class| class.bandwidth = BitRate::new(1_000_000));
    near.write_all(b"still").await.unwrap();
    far.read_exact(&mut [0; 5]).await.unwrap();
    world.set(|class| class.name = "satellite".to_owned());
    assert_eq!(ended(&mut near).await, io::ErrorKind::ConnectionReset);
    assert_eq!(world.snapshot().class, "satellite");
    let (mut near, mut far) = connection(&ticket).await;
    near.write_all(b"again").await.unwrap();
    far.read_exact(&mut [0; 5]).await.unwrap();
    let used: Vec<String> = world.ledger.usages().0.into_keys().collect();
    assert_eq!(used, ["harbour", "satellite"]);
}

#[tokio::test]
async fn the_end_of_the_gate_is_the_end_of_its_connections() {
    let world = World::new(LinkClass::new("harbour"));
    let ticket = world.ticket(1, 1);
    let (mut near, mut far) = connection(&ticket).await;
    drop(world.gate);
    ended(&mut near).await;
    assert!(far.read_u8().await.is_err());
    let gone = async {
        while TcpStream::connect(ticket.address).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), gone)
        .await
        .expect("nobody listens there any more");
}

#[tokio::test]
async fn a_budget_stops_bulk_first_and_alerts_at_its_end() {
    let mut class = LinkClass::new("lte");
    class.budget.bytes_per_day = Some(1_000_000);
    let world = World::new(class);
    let (bulk, alerts) = (world.ticket(1, 1), world.ticket(0, 1));
    let (mut near, mut far) = connection(&bulk).await;
    let (mut alert, mut alert_far) = connection(&alerts).await;
    let read = tokio::spawn(async move {
        let mut heard = Vec::new();
        // Ends in a reset, with all that came before it.
        let _ = far.read_to_end(&mut heard).await;
        heard.len()
    });
    let bytes = pattern(2_000_000);
    near.write_all(&bytes).await.ok();
    let heard = read.await.unwrap();
    // Up to the reserve, and the chunk that crossed the line.
    let most = 900_000 + bucket::CHUNK_BYTES_MAX;
    assert!((800_000..=most).contains(&heard), "{heard}");
    let snapshot = world.snapshot();
    let held = snapshot.held_because.unwrap();
    assert!(
        held.contains("day's bytes on link class `lte` is kept"),
        "{held}"
    );
    assert!(snapshot.day_bytes_left.unwrap() > 50_000);
    let (_listener, port) = broker().await;
    let why = through(&bulk, port).await.unwrap_err();
    assert!(why.contains("rules do not allow"), "{why}");
    // The reserve.
    alert.write_all(b"fire").await.unwrap();
    alert_far.read_exact(&mut [0; 4]).await.unwrap();
    alert.write_all(&bytes[..200_000]).await.ok();
    ended(&mut alert).await;
    assert!(through(&alerts, port).await.is_err());
    let held = world.snapshot().held_because.unwrap();
    assert!(held.contains("are used up"), "{held}");
}

#[tokio::test]
async fn outside_its_windows_nothing_passes_and_the_next_one_is_told() {
    let world = World::new(LinkClass::new("harbour"));
    let ticket = world.ticket(0, 1);
    let (mut near, _far) = connection(&ticket).await;
    let mut admission = world.ledger.admission();
    // A minute that is not now, nor soon.
    let minute = (UnixSeconds::now().0 / 60 + 30) % 60;
    let rule = format!("{minute} * * * *");
    world.set(|class| class.windows = Windows::new(Zone::UTC, [rule.as_str()]).unwrap());
    ended(&mut near).await;
    admission
        .wait_for(|it| matches!(it, Admission::Closed(Some(_))))
        .await
        .unwrap();
    let (_listener, port) = broker().await;
    assert!(through(&ticket, port).await.is_err());
    let snapshot = world.snapshot();
    let held = snapshot.held_because.unwrap();
    assert!(
        held.contains("opens in 29 min") || held.contains("opens in 30 min"),
        "{held}"
    );
    assert_eq!(snapshot.opens.unwrap().0 / 60 % 60, minute);
    world.set(|class| class.windows = Windows::always());
    admission
        .wait_for(|it| *it == Admission::All)
        .await
        .unwrap();
    connection(&ticket).await;
}

#[tokio::test]
async fn why_no_broker_was_reached_is_told_until_one_is() {
    let world = World::new(LinkClass::new("harbour"));
    let ticket = world.ticket(0, 1);
    let (listener, port) = broker().await;
    drop(listener);
    let why = through(&ticket, port).await.unwrap_err();
    assert!(why.contains("refused the connection"), "{why}");
    let told = world.snapshot().last_error.unwrap();
    assert!(
        told.contains(&format!("cannot connect to 127.0.0.1:{port}")),
        "{told}"
    );
    connection(&ticket).await;
    assert_eq!(world.snapshot().last_error, None);
}

/// Between the byte that used the budget up and the end of the connection nothing more goes.
#[tokio::test]
async fn a_relay_stands_still_once_its_lane_may_not_send() {
    let mut class = LinkClass::new("lte");
    class.budget.bytes_per_day = Some(1);
    let ledger = Ledger::new(Usages::default());
    let why = Why::Default;
    ledger.tick(&Arc::new(LinkSettings { class, why }), UnixSeconds::now());
    ledger.spend(1, 0);
    let (client_side, port) = broker().await;
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    let (mut near, _) = client_side.accept().await.unwrap();
    let (broker_side, port) = broker().await;
    let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    let (mut behind, _) = broker_side.accept().await.unwrap();
    let pacer = Pacer::new(None);
    let relay = Relay {
        lane: Lane {
            id: 1,
            priority: Priority(0),
            weight: NonZeroU32::MIN,
        },
        cost: Cost::of(&far),
        sending: &pacer,
        receiving: &pacer,
        ledger: &ledger,
        probe_after: Duration::from_secs(10),
    };
    client.write_all(b"too late").await.unwrap();
    tokio::select! {
        ended = relay.run(&mut near, &mut far) => panic!("{ended:?}"),
        heard = behind.read_u8() => panic!("{heard:?} arrived"),
        () = sleep(Duration::from_millis(300)) => {}
    }
}
