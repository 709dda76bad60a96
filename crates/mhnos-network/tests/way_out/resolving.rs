//! Names that take long to resolve, or for ever.

use mhnos_network::limits::RESOLVING_OF_ONE;

use super::*;

/// Never answers.
struct Mute;

impl Resolver for Mute {
    fn resolve<'r>(
        &'r self,
        _name: &'r str,
        _place: OwnedSemaphorePermit,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'r>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_name_that_is_not_resolved_in_time_is_given_up() {
    let bounds = Bounds { resolve: Duration::from_millis(50), ..Bounds::default() };
    for upstream in [None, Some("http://127.0.0.1:9".parse().expect("a proxy"))] {
        let gateway = Gateway::new(Egress::default(), vec![]).with(Box::new(Mute), bounds.clone());
        let sandbox = serve(gateway.through(upstream)).await;
        let (_, head) = connect(&sandbox, "slow.example:443").await;
        assert!(head.starts_with("HTTP/1.1 504") && head.contains("connection_timeout"), "{head}");
    }
}

/// Answers no name that begins with `slow`, and goes on asking for it when nobody wants it any more.
#[derive(Clone)]
struct Slow {
    held: Arc<Mutex<Vec<OwnedSemaphorePermit>>>,
    address: IpAddr,
}

impl Resolver for Slow {
    fn resolve<'r>(
        &'r self,
        name: &'r str,
        place: OwnedSemaphorePermit,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'r>> {
        if name.starts_with("slow") {
            self.held.lock().expect("not poisoned").push(place);
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(Ok(vec![self.address])))
    }
}

#[tokio::test]
async fn slow_names_of_one_sandbox_keep_no_other_from_asking() {
    let open = outside("open").await;
    let resolver = Slow { held: Arc::default(), address: open.ip() };
    let bounds = Bounds { resolve: Duration::from_millis(50), ..Bounds::default() };
    let gateway = Gateway::new(Egress::parse(&open.ip().to_string()).expect("a setting"), vec![]);
    let gateway = Arc::new(gateway.with(Box::new(resolver.clone()), bounds));
    let (busy, other) =
        (serve_as(Owner(Some(1000)), &gateway).await, serve_as(Owner(Some(1001)), &gateway).await);
    for number in 0..RESOLVING_OF_ONE + 2 {
        let (_, head) = connect(&busy, &format!("slow-{number}.example:443")).await;
        assert!(head.starts_with("HTTP/1.1 504"), "{head}");
    }
    assert_eq!(resolver.held.lock().expect("not poisoned").len(), RESOLVING_OF_ONE);
    let fast = format!("fast.example:{}", open.port());
    let (_, head) = connect(&busy, &fast).await;
    assert!(head.starts_with("HTTP/1.1 504"), "{head}");
    let (_, head) = connect(&other, &fast).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    // They are over at last.
    resolver.held.lock().expect("not poisoned").clear();
    let (_, head) = connect(&busy, &fast).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

/// As when a thread for it cannot be had. By its form it could be a public name, and the operator's proxy would be asked.
#[tokio::test]
async fn a_name_that_nobody_has_been_asked_for_is_not_taken_for_an_unknown_one() {
    struct Busy;
    impl Resolver for Busy {
        fn resolve<'r>(
            &'r self,
            _name: &'r str,
            _place: OwnedSemaphorePermit,
        ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'r>> {
            Box::pin(std::future::ready(Err(io::ErrorKind::WouldBlock.into())))
        }
    }
    let gateway = Gateway::new(Egress::default(), vec![]).with(Box::new(Busy), Bounds::default());
    let sandbox = serve(gateway.through(Some("http://127.0.0.1:9".parse().expect("a proxy")))).await;
    let (_, head) = connect(&sandbox, "registry.example.org:443").await;
    assert!(head.starts_with("HTTP/1.1 504") && head.contains("connection_timeout"), "{head}");
}
