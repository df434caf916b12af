//! What an answer keeps until it is made, and until it is sent.

use http_body_util::BodyExt;

use super::*;

const PODS: &str = "/api/v1/namespaces/a/pods";
const ONE: Counts = Counts { executing: 1, waiting: 0, refused: 0 };
const NONE: Counts = Counts { executing: 0, ..ONE };

fn list(answers: &OpenAnswers) -> Request<Body> {
    Request::get(PODS).header(LONG, "").extension(answers.clone()).body(Body::empty()).expect("a request")
}

#[tokio::test]
async fn a_list_has_its_seats_while_it_is_made() {
    let guarded = Guarded::start(600).await;
    let (joe, answers) = (user("joe"), open_answers());
    let mut body = guarded.ask(&joe, list(&answers)).await.into_body();
    let mut bytes = 0;
    for _ in 0..3 {
        assert_eq!(guarded.counts("global-default"), ONE, "{bytes} bytes were made");
        bytes += body.frame().await.expect("more").expect("a frame").into_data().expect("data").len();
    }
    while let Some(frame) = body.frame().await {
        bytes += frame.expect("a frame").into_data().expect("data").len();
    }
    assert_eq!(bytes, 10 * (64 << 10));
    assert_eq!(guarded.counts("global-default"), NONE, "all is made");
}

#[tokio::test]
async fn a_list_whose_client_takes_nothing_loses_its_seats_and_is_sent_nevertheless() {
    let guarded = Guarded::start(600).await;
    let (joe, answers) = (user("joe"), open_answers());
    let passed_on = Request::get(PODS).header(LONG, OF_ANOTHER).extension(answers.clone()).body(Body::empty());
    for request in [list(&answers), passed_on.expect("a request")] {
        let mut body = guarded.ask(&joe, request).await.into_body();
        body.frame().await.expect("a piece").expect("a frame");
        assert_eq!(guarded.counts("global-default"), ONE);
        until("its patience ends", || guarded.counts("global-default") == NONE).await;
        assert!(body.collect().await.expect("the rest").to_bytes().len() > 500 << 10);
    }
}

#[tokio::test]
async fn answers_of_other_servers_that_nobody_takes_are_bounded() {
    let (guarded, joe, mut open) = (Guarded::start(600).await, user("joe"), Vec::new());
    let answers = open_answers();
    for _ in 0..10_000 {
        let request = Request::get(PODS).header(LONG, OF_ANOTHER).extension(answers.clone()).body(Body::empty());
        let answer = guarded.ask(&joe, request.expect("a request")).await;
        if answer.status() == 429 {
            // Of 256 MiB one user has a half.
            assert_eq!(open.len(), 512);
            return;
        }
        let mut body = answer.into_body();
        body.frame().await.expect("a piece").expect("a frame");
        open.push(body);
    }
    panic!("{} answers are open", open.len());
}

#[tokio::test]
async fn writes_whose_answers_nobody_takes_are_bounded_and_leave_memory_for_reads_of_others() {
    let guarded = Guarded::start(600).await;
    let joe = user("joe");
    let write = || {
        let write = Request::patch("/api/v1/namespaces/a/configmaps/c").header(LARGE, "").body(Body::empty());
        tokio::spawn(guarded.ask(&joe, write.expect("a request")))
    };
    let writes: Vec<tokio::task::JoinHandle<Response<Body>>> = (0..400).map(|_| write()).collect();
    let answered = || writes.iter().filter(|write| write.is_finished()).count();
    until("all have come", || answered() + guarded.counts("global-default").waiting == 400).await;
    let Counts { executing, waiting, refused } = guarded.counts("global-default");
    // Of 256 MiB one user has a half, and what is beyond it takes a seat for each.
    assert!(executing > 10 && waiting > 100 && answered() == 128 + executing, "{executing} {waiting}");
    let read = guarded.ask(&user("ann"), list(&OpenAnswers::default())).await;
    assert_eq!(read.status(), 200, "there is memory for another's list");
    drop(read);
    // All are told what they changed, once others have been.
    let mut told = 0;
    for write in writes {
        let answer = write.await.expect("no panic");
        told += usize::from(answer.status() == 200);
        drop(answer);
    }
    assert_eq!((told, refused), (400, 0));
}
