package task

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"carillon/server/nextversion"
	"carillon/server/push"
)

// How records are stored, the same in every store that stores bytes: a byte with the version of their form, then a JSON object. A new member is no new
// form: a node passes over what it does not know, and drops it from what it writes anew, so that what is added has to be such that a
// record does without (see decision 19). A form that an older node could not read rightly gets a higher version, and that node refuses it.

// recordVersion begins every record that is written here.
const recordVersion = 1

// errUnreadable stands for errors of encoding/json, which might quote a body.
var errUnreadable = errors.New("not readable")

func errRecord(what string, err error) error {
	return &push.Error{Kind: push.KindInternal, Code: "corrupt_value", Detail: "a stored " + what + " cannot be read", Err: err}
}

// encode returns a record with its version. JSON that lies in it stays as it is, but for white space.
func encode(what string, record any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(record); err != nil {
		return nil, &push.Error{Kind: push.KindInternal, Code: "bad_record", Detail: "a " + what + " cannot be stored", Err: errUnreadable}
	}
	return append([]byte{recordVersion}, nextversion.Object(bytes.TrimSuffix(b.Bytes(), []byte("\n")))...), nil
}

func decode(what string, b []byte, to any) error {
	switch {
	case len(b) == 0:
		return errRecord(what, errUnreadable)
	case b[0] != recordVersion:
		return errRecord(what, fmt.Errorf("its version is %d, this node reads %d", b[0], recordVersion))
	case json.Unmarshal(b[1:], to) != nil:
		return errRecord(what, errUnreadable)
	}
	return nil
}

// Encode returns a task as it is stored. KindInternal, "bad_record": To or Message is no JSON.
func Encode(t *Task) ([]byte, error) { return encode("task", t) }

// Decode reads what [Encode] wrote; the result shares no memory with it. KindInternal, "corrupt_value".
func Decode(b []byte) (t Task, err error) {
	if err := decode("task", b, &t); err != nil {
		return Task{}, err
	}
	t.To, t.Message = noNull(t.To), noNull(t.Message)
	return t, nil
}

// noNull returns nil for what was nil when it was encoded.
func noNull(m json.RawMessage) json.RawMessage {
	if string(m) == "null" {
		return nil
	}
	return m
}

// listRecord is a list as it is stored.
type listRecord struct {
	List
	Until push.MilliTime `json:"until"`
}

// EncodeList returns a list as it is stored, and until when it is kept.
func EncodeList(l *List, until push.MilliTime) ([]byte, error) {
	return encode("list", listRecord{*l, until})
}

// DecodeList reads what [EncodeList] wrote. KindInternal, "corrupt_value".
func DecodeList(b []byte) (List, push.MilliTime, error) {
	var r listRecord
	if err := decode("list", b, &r); err != nil {
		return List{}, 0, err
	}
	return r.List, r.Until, nil
}

// EncodeSwitch returns a switch as it is stored.
func EncodeSwitch(s Switch) ([]byte, error) { return encode("switch", s) }

// DecodeSwitch reads what [EncodeSwitch] wrote. KindInternal, "corrupt_value".
func DecodeSwitch(b []byte) (s Switch, err error) {
	if err := decode("switch", b, &s); err != nil {
		return Switch{}, err
	}
	return s, nil
}

// KeyRecord is what is kept of an idempotency key: what came with it, when, and the task as it was made.
type KeyRecord struct {
	Digest [32]byte
	At     push.MilliTime
	Task   []byte // as Encode wrote it
}

const keyHead = 1 + 8 + 32

// EncodeKey returns what is kept of a key as it is stored: version, when, digest, the task.
func EncodeKey(r KeyRecord) []byte {
	b := append(make([]byte, 0, keyHead+len(r.Task)), recordVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(r.At))
	b = append(b, r.Digest[:]...)
	return append(b, r.Task...)
}

// DecodeKey reads what [EncodeKey] wrote, and shares its memory. KindInternal, "corrupt_value".
func DecodeKey(b []byte) (r KeyRecord, err error) {
	if len(b) < keyHead || b[0] != recordVersion {
		return r, errRecord("idempotency key", errUnreadable)
	}
	r.At = push.MilliTime(binary.BigEndian.Uint64(b[1:]))
	copy(r.Digest[:], b[9:])
	r.Task = b[keyHead:]
	return r, nil
}

// Answer returns what a request is answered that comes with the key of r: the task as it was made, or KindKeyReused. found is false if the key is
// forgotten by now.
func (r *KeyRecord) Answer(k Key, now push.MilliTime) (made Task, found bool, err error) {
	if now >= r.At.Add(KeyKept) {
		return Task{}, false, nil
	}
	if r.Digest != k.Digest {
		return Task{}, true, ErrKeyReused()
	}
	made, err = Decode(r.Task)
	return made, true, err
}

// EncodeMade returns a task as the store makes it at a moment: with its first revision.
func EncodeMade(t Task, now push.MilliTime) ([]byte, error) {
	t.Revision, t.Created = 1, now
	return Encode(&t)
}

// SameTask reports whether two tasks, as they are stored, are equal but for Revision and Created.
func SameTask(a, b []byte) (bool, error) {
	plain := func(b []byte) ([]byte, error) {
		t, err := Decode(b)
		if err != nil {
			return nil, err
		}
		t.Revision, t.Created = 0, 0
		return Encode(&t)
	}
	pa, err := plain(a)
	if err != nil {
		return false, err
	}
	pb, err := plain(b)
	return err == nil && bytes.Equal(pa, pb), err
}

// SameList reports whether two lists are equal but for Created.
func SameList(a, b List) bool {
	a.Created, b.Created = 0, 0
	ea, errA := EncodeList(&a, 0)
	eb, errB := EncodeList(&b, 0)
	return errA == nil && errB == nil && bytes.Equal(ea, eb)
}

// KeptUntil returns when a task is forgotten; 0: not before it has ended.
func KeptUntil(t *Task) push.MilliTime {
	if !t.State.Ended() {
		return 0
	}
	return max(t.Changed, t.Run.Ended).Add(Kept)
}
