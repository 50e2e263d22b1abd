package saver

import (
	"encoding/binary"

	"carillon/server/push"
)

// AppendTags appends the tags of a user: version, their number and each one, ascending. There is at least one: what has
// none is not stored.
func AppendTags(dst []byte, tags []push.Tag) []byte {
	return appendTags(appendVersion(dst), tags)
}

// DecodeTags reads what AppendTags wrote.
func DecodeTags(b []byte) ([]push.Tag, error) {
	d := decoder{b: b}
	d.version()
	tags := d.tags()
	if len(tags) == 0 {
		d.fail("an empty set of tags")
	}
	if err := d.end("tags"); err != nil {
		return nil, err
	}
	return tags, nil
}

// AppendDeviceTags appends the tags of a device: version, id, then number and tags of those set, and of those joined,
// ascending. There is at least one. Those of its token are a value of their own, see AppendTokenTags.
func AppendDeviceTags(dst []byte, v *DeviceTags) []byte {
	dst = appendString(appendVersion(dst), string(v.Device))
	return appendTags(appendTags(dst, v.Set), v.Joined)
}

// DecodeDeviceTags reads what AppendDeviceTags wrote.
func DecodeDeviceTags(b []byte) (DeviceTags, error) {
	d := decoder{b: b}
	d.version()
	v := DeviceTags{Device: push.DeviceID(d.str()), Set: d.tags(), Joined: d.tags()}
	if len(v.Set)+len(v.Joined) == 0 {
		d.fail("a device without tags")
	}
	if err := d.end("tags of a device"); err != nil {
		return DeviceTags{}, err
	}
	return v, nil
}

// AppendTokenTags appends the tags of a device's token, of which there is at least one, in the form of tags that are set. They stand apart
// from the device's other tags because the first version knows only those: it does without these, and reads the rest.
func AppendTokenTags(dst []byte, v *DeviceTags) []byte {
	return AppendDeviceTags(dst, &DeviceTags{Device: v.Device, Set: v.Token})
}

// DecodeTokenTags reads what AppendTokenTags wrote.
func DecodeTokenTags(b []byte) (push.DeviceID, []push.Tag, error) {
	v, err := DecodeDeviceTags(b)
	if err == nil && len(v.Joined) > 0 {
		err = wrapDecode("tags of a token", push.Errorf(push.KindInternal, "corrupt_value", "more than a token has"))
	}
	if err != nil {
		return "", nil, err
	}
	return v.Device, v.Set, nil
}

func appendTags(dst []byte, tags []push.Tag) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(tags)))
	for _, t := range tags {
		dst = appendString(dst, string(t))
	}
	return dst
}

// tags reads a set of tags; an empty one is nil.
func (d *decoder) tags() []push.Tag {
	n := d.count(uint64(len(d.b) / 2)) // each has a length and at least one byte
	if n == 0 {
		return nil
	}
	tags := make([]push.Tag, n)
	for i := range tags {
		tags[i] = push.Tag(d.someString())
		if i > 0 && tags[i] <= tags[i-1] {
			d.fail("tags that do not ascend")
		}
	}
	return tags
}
