#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::engine::api::tests::answering;

fn job_named(name: &str, host: &Value) -> Value {
    let mut host = host.clone();
    host["AutoRemove"] = json!(true);
    json!({"Id": format!("{name}-id"), "Name": format!("/{name}"), "HostConfig": host})
}

fn json_of(status: &str, body: &str) -> &'static str {
    Box::leak(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_boxed_str())
}

fn served(texts: &[&'static str]) -> (tempfile::TempDir, Api, std::thread::JoinHandle<Vec<String>>) {
    answering(Box::leak(texts.to_vec().into_boxed_slice()))
}

#[test]
fn what_was_made_is_removed_again_where_one_cannot_be_saved() {
    let (_dir, api, server) = served(&[
        json_of("200 OK", r#"[{"Id": "i0", "RepoTags": ["saved-a:latest"]}]"#),
        json_of("201 Created", r#"{"Id": "i1"}"#),
        json_of("201 Created", r#"{"Id": "c1"}"#),
        json_of("200 OK", "{}"),
        json_of("200 OK", "{}"),
        json_of("500 x", r#"{"message": "no space"}"#),
        json_of("200 OK", "{}"),
        json_of("204 No Content", ""),
        json_of("409 x", r#"{"message": "in use"}"#),
    ]);
    let all = [job_named("b", &json!({"Links": ["/a:/b/x"]})), job_named("a", &json!({}))];
    let unsaved = save(&api, &all, None, &Watcher::none()).unwrap_err();
    let why = format!("{:#}", unsaved.why);
    assert!(why.contains("saving the container `b`") && why.contains("with 500: no space"), "{why}");
    assert!(unsaved.left[0].contains("the image `saved-a-2` is there still"), "{:?}", unsaved.left);
    assert!(unsaved.left[0].ends_with("docker rmi saved-a-2"), "{:?}", unsaved.left);
    let asked = server.join().unwrap();
    for (at, is) in [
        (
            1,
            "POST /commit?container=a-id&repo=saved-a-2&tag=latest&pause=1&changes=LABEL%20dmpool.saved-from%3Da-id HTTP/1.1",
        ),
        (2, "POST /containers/create?name=saved-a-2 HTTP/1.1"),
        (7, "DELETE /containers/c1?v=1 HTTP/1.1"),
        (8, "DELETE /images/i1?noprune=1 HTTP/1.1"),
    ] {
        assert_eq!(asked[at], is);
    }
}

#[test]
fn what_a_dead_dmpool_has_left_is_replaced_and_nobody_elses() {
    let images = r#"[{"Id": "i0", "RepoTags": ["saved-a:latest"], "Labels": {"dmpool.saved-from": "a-id"}}]"#;
    let (_dir, api, server) = served(&[
        json_of("200 OK", images),
        json_of("201 Created", r#"{"Id": "i1"}"#),
        json_of("204 No Content", ""),
        json_of("201 Created", r#"{"Id": "c1"}"#),
        json_of("200 OK", "{}"),
        json_of("200 OK", "{}"),
        json_of("200 OK", "[]"),
    ]);
    let mut left = json!({"Id": "c0", "Name": "/saved-a", "State": {"Status": "created"}});
    left["Config"]["Labels"][LABEL] = json!("a-id");
    let made = save(&api, &[job_named("a", &json!({})), left.clone()], None, &Watcher::none()).unwrap();
    assert_eq!((made.len(), made[0].name.as_str()), (1, "saved-a"));
    let asked = server.join().unwrap();
    assert_eq!(asked[2], "DELETE /containers/c0 HTTP/1.1");
    assert_eq!(asked[6], "DELETE /images/i0?noprune=1 HTTP/1.1");
    // Somebody has started it since.
    left["State"]["Status"] = json!("exited");
    let it = job_named("a", &json!({}));
    assert_eq!(job(&it, &[it.clone(), left], &[], &[]).made.name, "saved-a-2");
}

#[test]
fn one_that_has_ended_meanwhile_is_not_saved() {
    let (_dir, api, _server) = served(&[json_of("200 OK", "[]"), json_of("404 x", "{}")]);
    assert_eq!(save(&api, &[job_named("a", &json!({}))], None, &Watcher::none()).unwrap(), []);
}

#[test]
fn what_would_fill_the_pool_is_not_tried() {
    let info = |available: &str| json!({"DriverStatus": [["Data Space Available", available], ["Thin Pool Minimum Free Space", "429.5MB"]]});
    let room = |available: &str| super::room(&info(available)).map(Bytes::get);
    assert_eq!((room("1.5GB"), room("12kB"), room("unknown")), (Some(1_070_500_000), Some(0), None));
    assert_eq!(super::room(&json!({"DriverStatus": [["Backing Filesystem", "xfs"]]})), None);
    let mut small = info("1.5GB");
    let more = [
        ("Pool Blocksize", "65.54kB"),
        ("Data Space Total", "4.295GB"),
        ("Metadata Space Total", "2.097MB"),
        ("Metadata Space Available", "1.097MB"),
    ];
    small["DriverStatus"].as_array_mut().unwrap().extend(more.map(|(key, value)| json!([key, value])));
    assert_eq!(super::room(&small).map(Bytes::get), Some((1_097_000 - 209_700) / 64 * 65_540));
    let sized = [json_of("200 OK", r#"{"SizeRw": 950000000}"#)];
    let (_dir, api, server) = served(&sized);
    let unsaved = save(&api, &[job_named("a", &json!({}))], super::room(&info("1.5GB")), &Watcher::none()).unwrap_err();
    let why = unsaved.why.to_string();
    assert!(why.contains("is written once more, 1.0 GiB") && why.contains("room for 1020.9 MiB"), "{why}");
    assert_eq!(server.join().unwrap(), ["GET /containers/a-id/json?size=1 HTTP/1.1"]);
}

#[test]
fn what_was_made_of_one_that_ended_meanwhile_goes_and_its_volume_made_anew() {
    let volume = "ab".repeat(32);
    let mounts = json!([{"Type": "volume", "Name": volume, "Destination": "/x"}]);
    let there: &str = Box::leak(json!({ "Mounts": mounts }).to_string().into_boxed_str());
    let (_dir, api, server) = served(&[
        json_of("200 OK", "[]"),
        json_of("201 Created", r#"{"Id": "i1"}"#),
        json_of("201 Created", r#"{"Id": "c1"}"#),
        json_of("200 OK", there),
        json_of("404 x", "{}"),
        json_of("204 No Content", ""),
        json_of("200 OK", "[]"),
        json_of("204 No Content", ""),
    ]);
    let mut ends = job_named("a", &json!({}));
    ends["Mounts"] = mounts;
    // What needs it could not be started, and Docker would not make it.
    let needs = job_named("b", &json!({"NetworkMode": "container:a-id"}));
    let unsaved = save(&api, &[needs, ends], None, &Watcher::none()).unwrap_err();
    let why = unsaved.why.to_string();
    assert!(why.contains("`b`: it needs the container `a`, which was made with --rm too and has ended"), "{why}");
    assert_eq!(unsaved.left, [""; 0]);
    let asked = server.join().unwrap();
    assert_eq!(asked[5..7], ["DELETE /containers/c1?v=1 HTTP/1.1", "DELETE /images/i1?noprune=1 HTTP/1.1"]);
    assert_eq!(asked[7], format!("DELETE /volumes/{volume} HTTP/1.1"));
}

#[test]
fn one_that_cannot_be_committed_since_it_goes_is_one_that_has_ended() {
    let (_dir, api, _server) = served(&[
        json_of("200 OK", "[]"),
        json_of("409 x", r#"{"message": "You cannot commit container a which is being removed"}"#),
        json_of("200 OK", r#"{"State": {"RemovalInProgress": true}}"#),
    ]);
    assert_eq!(save(&api, &[job_named("a", &json!({}))], None, &Watcher::none()).unwrap(), []);
}

#[test]
fn what_stays_keeps_what_it_needs() {
    let made = |of: &str, needs: &[&str]| Made {
        of: of.to_owned(),
        name: format!("saved-{of}"),
        needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        image: Some(format!("i-{of}")),
        ..Made::default()
    };
    let all = ["a", "b", "d"].map(|id| json_of("200 OK", Box::leak(json!({ "Id": id }).to_string().into_boxed_str())));
    let listed = json_of("200 OK", r#"[{"Id": "a"}, {"Id": "b"}, {"Id": "d"}]"#);
    let (_dir, api, server) = served(&[&[listed], &all[..], &[json_of("200 OK", "[]")]].concat());
    let made = vec![made("a", &[]), made("b", &["a"]), made("c", &["b"]), made("d", &[])];
    let (left, [gone, needed]) = remove_needless(&api, made).unwrap();
    let names = |made: &[Made]| made.iter().map(|made| made.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        (left.len(), names(&gone), names(&needed)),
        (0, vec!["saved-c".to_owned()], vec!["saved-b".to_owned(), "saved-a".to_owned()])
    );
    assert_eq!(server.join().unwrap()[4], "DELETE /images/i-d?noprune=1 HTTP/1.1");
}

#[test]
fn of_what_was_saved_only_that_is_to_be_removed_which_went_with_it() {
    let [anonymous, named] = ["ab", "cd"].map(|digits| digits.repeat(32));
    let mut job = job_named("Job_1", &json!({"Binds": [format!("{named}:/data")]}));
    let volume = |name: &str| json!({"Type": "volume", "Name": name, "Destination": "/x"});
    job["Mounts"] = json!([volume(&anonymous), volume(&named)]);
    let mut before = json!({"Id": "x", "Name": "/saved-job-1", "Mounts": job["Mounts"], "HostConfig": {}});
    before["Config"]["Labels"][LABEL] = json!("Job_1-id");
    let made = Made { of: "Job_1-id".to_owned(), name: "saved-job-1-2".to_owned(), ..Made::default() };
    let told = told(&[job, before], &[made]);
    assert_eq!(told.len(), 1);
    let text = told[0].to_string();
    assert!(text.contains("`Job_1` was saved as `saved-job-1-2`:  docker start saved-job-1-2"), "{text}");
    let removed = format!("docker rm saved-job-1-2; docker rmi saved-job-1-2; docker volume rm {anonymous}");
    assert!(text.ends_with(&removed), "{text}");
}

#[test]
fn what_does_not_say_how_large_it_is_is_not_saved() {
    let (_dir, api, _server) = served(&[json_of("200 OK", r#"{"SizeRw": -1}"#)]);
    let unsaved = save(&api, &[job_named("a", &json!({}))], Some(Bytes::new(1 << 40)), &Watcher::none()).unwrap_err();
    assert_eq!(unsaved.why.to_string(), "Docker does not say how large the container `a` is");
}
