//! Messages in msgpack: as `message`, whose first byte chooses one of ten generations.

/// Selects M5.
const M5: u8 = 9;

pub fn run(data: &[u8]) {
    super::message::run(&[&[M5], data].concat());
}

pub fn seeds() -> Vec<Vec<u8>> {
    let is_msgpack = |payload: &Vec<u8>| payload.first() == Some(&0x94);
    let mut seeds: Vec<Vec<u8>> = super::recorded_payloads().into_iter().filter(is_msgpack).collect();
    let made: [&[u8]; 6] = [
        b"\x94\x01\xc2\xa8register\x92\xa11\xc2",
        b"\x94\x92\xc4\x08\0\0\0\0\0\0\0\x01\xc4\x08\x7f\xff\xff\xff\xff\xff\xff\xff\xc2\xaaloadBefore\x92\xc4\x08\0\0\0\0\0\0\0\x01\xc4\x08\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x94\x00\xc3\xa9tpc_begin\x96\x05\xc4\x01u\xc4\x01d\x82\xa1k\x93\x01\xcb\x3f\xf0\0\0\0\0\0\0\xc0\xa1l\x80\xc0\xa1 ",
        b"\x94\x02\xc2\xa8undoInfo\x93\x00\xd0\xec\x81\xa9user_name\xc4\x01u",
        b"\x94\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xc2\xa7unknown\xdc\x00\x02\xde\x00\x01\x01\x02\xdd\x00\x00\x00\x01\xc0",
        b"\x94\x03\xc2\xabiterator_gc\x91\x93\x01\xcd\x01\x00\xd1\xff\x00",
    ];
    seeds.extend(made.map(<[u8]>::to_vec));
    seeds
}
