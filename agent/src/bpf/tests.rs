use super::*;

#[test]
fn records_are_cut_by_their_length() {
    let mut bytes = Vec::new();
    for body in [&b"abcd"[..], b"", b"x"] {
        bytes.extend(u32::try_from(body.len() + 4).unwrap().to_ne_bytes());
        bytes.extend(body);
    }
    let mut seen = Vec::new();
    let used = split(&bytes, &mut |record| seen.push(record[4..].to_vec())).unwrap();
    assert_eq!((used, seen), (bytes.len(), vec![b"abcd".to_vec(), b"".to_vec(), b"x".to_vec()]));
    let cut_short = split(&bytes[..bytes.len() - 1], &mut |_| {}).unwrap();
    assert_eq!(cut_short, bytes.len() - 5, "what is not whole is left for the next read");
    assert!(split(&[3, 0, 0, 0], &mut |_| {}).is_err());
    assert!(split(&[255; 8], &mut |_| {}).is_err());
}

#[test]
fn without_bpf_every_program_has_its_reason() {
    let bpf = Bpf::none(OBJECTS, "configured");
    for (program, _) in OBJECTS.iter().flat_map(|object| object.programs) {
        assert_eq!(bpf.refusal(program), Some("configured"));
    }
    let read = bpf.read_iterator("processes", "tasks", |_| {});
    assert!(matches!(read, Err(BpfError::NotLoaded("tasks"))));
}

#[test]
fn this_kernel_takes_every_program() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let bpf = Bpf::load(OBJECTS);
    for (program, _) in OBJECTS.iter().flat_map(|object| object.programs) {
        assert_eq!(bpf.refusal(program), None, "{program}");
    }
}
