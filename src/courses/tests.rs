use futures_util::FutureExt;
use tokio::time::{advance, pause};

use super::*;
use crate::delivery::{Failure, Reason, request::tests::subscriber};

fn allowing(max_in_flight: usize) -> Arc<Subscriber> {
    Arc::new(Subscriber {
        max_in_flight,
        ..subscriber(&[])
    })
}

fn courses() -> Courses {
    Courses::new(Arc::default())
}

/// A turn that needs no waiting for.
fn turn(course: &Arc<Course>) -> Option<Permit> {
    course.turn().now_or_never().flatten()
}

#[tokio::test]
async fn a_limit_that_changes_counts_what_is_under_way() {
    pause();
    let courses = courses();
    let now = |limit| turn(&courses.of(&allowing(limit)));
    let mut under_way: Vec<_> = (0..3).filter_map(|_| now(3)).collect();
    assert_eq!(under_way.len(), 3);
    assert!(now(3).is_none());

    assert!(now(1).is_none(), "three are under way, and one may be");
    under_way.truncate(1);
    assert!(now(1).is_none(), "one is still under way");
    under_way.clear();
    under_way.extend(now(1));
    assert_eq!(under_way.len(), 1);
    assert!(now(1).is_none());

    under_way.extend(now(2));
    assert_eq!(under_way.len(), 2, "one more may be now");
    assert!(now(2).is_none());
    let status = courses.status(&SubscriberId::new("fixit")).unwrap();
    assert_eq!(status.in_flight, 2);
}

#[tokio::test]
async fn who_is_slow_may_have_few_and_who_is_quick_again_as_many_as_before() {
    let courses = courses();
    let subscriber = allowing(20);
    let course = courses.of(&subscriber);
    let mut under_way: Vec<_> = (0..20).filter_map(|_| turn(&course)).collect();
    assert_eq!(under_way.len(), 20);
    let mut late: Vec<_> = (1..LATE_AT_ONCE).map(|_| course.late()).collect();
    late.pop();
    late.push(course.late());
    assert!(!course.slow(), "one was over before another was late");
    late.push(course.late());
    assert!(course.slow());
    assert_eq!(courses.slow(), 1);

    under_way.truncate(FEW);
    assert!(turn(&course).is_none(), "few are under way");
    under_way.clear();
    under_way.extend((0..20).filter_map(|_| turn(&course)));
    assert_eq!(under_way.len(), FEW);
}

#[tokio::test]
async fn a_turn_that_does_not_come_makes_slow() {
    pause();
    let courses = courses();
    let course = courses.of(&allowing(1));
    let under_way = turn(&course).unwrap();
    let began = Instant::now();
    assert!(course.turn().await.is_none());
    assert!(began.elapsed() >= PATIENCE);
    assert!(course.slow());
    drop(under_way);
    assert!(turn(&course).is_some(), "it may have one all the same");
}

#[tokio::test]
async fn a_full_host_is_nobodys_own_fault() {
    pause();
    let courses = courses();
    let mut under_way = Vec::new();
    for number in 0..=HOST_LIMIT {
        let mut one = subscriber(&[]);
        one.id = SubscriberId::new(format!("fixit-{number}"));
        let course = courses.of(&Arc::new(one));
        under_way.extend(course.turn().await);
        assert!(!course.slow());
    }
    assert_eq!(under_way.len(), HOST_LIMIT);
    advance(PATIENCE).await;
}

#[test]
fn another_target_begins_anew() {
    let courses = courses();
    let one = subscriber(&[]);
    let course = courses.of(&Arc::new(one.clone()));
    let late: Vec<_> = (0..LATE_AT_ONCE).map(|_| course.late()).collect();
    assert_eq!(courses.slow(), 1);
    assert!(courses.of(&Arc::new(one.clone())).slow(), "loaded again");
    let mut moved = one;
    let Target::Http(target) = &mut moved.target else {
        panic!("an HTTP target");
    };
    target.url = "https://elsewhere.example/hook".parse().unwrap();
    assert!(!courses.of(&Arc::new(moved)).slow());
    assert_eq!(courses.slow(), 0);
    drop(late);
    drop(course);
    courses.retain(|_| false);
    assert!(lock(&courses.hosts).is_empty());
}

#[test]
fn who_is_attempted_at_once_has_shown_to_be_prompt() {
    let courses = courses();
    let course = courses.of(&allowing(1));
    assert!(course.place().is_none(), "nothing is known yet");
    let failed = Outcome::Failed(Failure::new(Reason::HttpStatus, "500"));
    let id = SubscriberId::new("fixit");
    let ended = |outcome: &Outcome, took| courses.ended(&id, outcome, took, Timestamp::now());
    for took in [None, Some(LATE * 2)] {
        ended(&failed, took);
        assert!(course.place().is_none(), "{took:?}");
    }
    let status = courses.status(&id).unwrap();
    assert_eq!(status.failures_in_a_row, 2);
    assert_eq!(courses.worst(50), [(id.clone(), 2)]);
    assert_eq!(courses.worst(0), []);
    assert_eq!(status.last_success, None);
    ended(&failed, Some(LATE / 2));
    assert!(course.place().is_some(), "it failed in good time");
    ended(&Outcome::Delivered, Some(LATE * 2));
    assert!(course.place().is_some(), "one that is late is no failure");
    assert_eq!(courses.status(&id).unwrap().failures_in_a_row, 0);
    assert_eq!(courses.worst(50), []);
}

#[test]
fn no_more_are_attempted_at_once_than_have_their_turn_soon() {
    let courses = courses();
    let course = courses.of(&allowing(2));
    let id = SubscriberId::new("fixit");
    courses.ended(&id, &Outcome::Delivered, Some(LATE / 2), Timestamp::now());
    let places = || -> Vec<_> {
        let some = std::iter::from_fn(|| course.place());
        some.take(1_000).collect()
    };
    assert_eq!(places().len(), 1_000, "what an attempt takes is not known");
    for _ in 0..100 {
        course.quick(SOON / 10);
    }
    let some = places();
    assert!((20..30).contains(&some.len()), "{}", some.len());
    assert!(course.place().is_none());
    drop(some);
    for _ in 0..100 {
        course.quick(SOON * 5);
    }
    assert_eq!(places().len(), 2, "as many as need not wait");
    let in_a_lane = [turn(&course), turn(&course)];
    assert!(in_a_lane.iter().all(Option::is_some));
    assert!(places().is_empty(), "those in a lane are before it, too");
    drop(in_a_lane);
    assert_eq!(places().len(), 2);
    for _ in 0..LATE_AT_ONCE {
        std::mem::forget(course.late());
    }
    assert!(course.slow() && course.place().is_none());
}

#[test]
fn a_lane_is_shared_while_two_of_it_are_slow() {
    let courses = courses();
    let named = |id: String| {
        Arc::new(Subscriber {
            id: SubscriberId::new(&*id),
            ..subscriber(&[])
        })
    };
    let lane = |id: &SubscriberId| delivery::lane(delivery::Pace::Slow, id);
    let first = named("first".into());
    let of_its_lane = (0..1_000)
        .map(|number| named(format!("other-{number}")))
        .find(|other| lane(&other.id) == lane(&first.id));
    let other = of_its_lane.unwrap();
    let slow = |one| {
        let course = courses.of(one);
        course.slow_down(&mut lock(&course.state));
    };
    slow(&first);
    slow(&first);
    assert!(!courses.share(lane(&first.id)), "it is there alone");
    slow(&other);
    assert!(courses.share(lane(&first.id)));
    courses.retain(|id| *id == first.id);
    assert!(!courses.share(lane(&first.id)), "the other is gone");
}
