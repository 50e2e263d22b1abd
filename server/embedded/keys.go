package embedded

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Space is a key space: the first byte of every key of one owner. All spaces are allotted here, so that no two owners
// can reach into each other's.
type Space byte

// The spaces.
const (
	SpaceMeta    Space = 'm' // this package: the format version
	SpaceCatalog Space = 'c' // catalog/pebble
	SpaceIDs     Space = 'i' // idgenerator/pebble
	SpaceSaver   Space = 's' // saver/pebble
	SpaceTasks   Space = 't' // task/pebble
)

// Strings inside keys end with two bytes that cannot stand in them, and a zero byte inside is doubled with 0xff. So
// keys sort as their parts do, no string is a prefix of another's encoding, and whatever users choose as names stays
// inside its range.
const (
	keyEscape     = 0x00
	keyEscapedNul = 0xff
	keyEnd        = 0x01
)

// AppendKeyString appends s as one part of a key.
func AppendKeyString[S ~string | ~[]byte](dst []byte, s S) []byte {
	for i := 0; i < len(s); i++ {
		dst = append(dst, s[i])
		if s[i] == keyEscape {
			dst = append(dst, keyEscapedNul)
		}
	}
	return append(dst, keyEscape, keyEnd)
}

// AppendKeyUint64 appends n as 8 bytes, big endian, so that keys sort by it.
func AppendKeyUint64(dst []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(dst, n) }

// AppendKeyUint16 appends n as 2 bytes, big endian.
func AppendKeyUint16(dst []byte, n uint16) []byte { return binary.BigEndian.AppendUint16(dst, n) }

// CutKeyString reads what [AppendKeyString] wrote and returns the rest of the key.
func CutKeyString(key []byte) (s string, rest []byte, err error) {
	i := bytes.IndexByte(key, keyEscape)
	if i >= 0 && i+1 < len(key) && key[i+1] == keyEnd {
		return string(key[:i]), key[i+2:], nil // nothing was escaped, as in nearly all keys
	}
	var out []byte
	for i := 0; i+1 < len(key); i++ {
		switch {
		case key[i] != keyEscape:
			out = append(out, key[i])
		case key[i+1] == keyEnd:
			return string(out), key[i+2:], nil
		case key[i+1] == keyEscapedNul:
			out = append(out, keyEscape)
			i++
		default:
			return "", nil, fmt.Errorf("embedded: a key part is malformed")
		}
	}
	return "", nil, fmt.Errorf("embedded: a key part has no end")
}

// CutKeyUint64 reads what [AppendKeyUint64] wrote and returns the rest of the key.
func CutKeyUint64(key []byte) (n uint64, rest []byte, err error) {
	if len(key) < 8 {
		return 0, nil, fmt.Errorf("embedded: a key number is cut short")
	}
	return binary.BigEndian.Uint64(key), key[8:], nil
}

// CutKeyUint16 reads what [AppendKeyUint16] wrote and returns the rest of the key.
func CutKeyUint16(key []byte) (n uint16, rest []byte, err error) {
	if len(key) < 2 {
		return 0, nil, fmt.Errorf("embedded: a key number is cut short")
	}
	return binary.BigEndian.Uint16(key), key[2:], nil
}

// PrefixEnd returns the key that comes right after every key with that prefix: the upper bound of a scan over it. It is
// nil, no bound, for a prefix of 0xff only.
func PrefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			end := bytes.Clone(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}
