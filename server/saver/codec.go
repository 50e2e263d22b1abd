package saver

import (
	"encoding/binary"
	"fmt"

	"carillon/server/nextversion"
	"carillon/server/push"
)

// What stores keep is written by hand in a compact binary form, the same in every store. Each value stands alone and
// begins with its version; what follows is, unless said otherwise, unsigned varints (shortest form), and strings as
// length and bytes. A value of a version above the first has what was added since right behind its version, with the length before it: of
// the version after ours that is passed over, whatever else it holds, and gone when the value is written here. So what is added
// has to be such that a value does without; what is not is a flag or a kind, which is refused where it is not known. A value has exactly one encoding: decoders refuse overlong numbers, flags they do not know, empty
// parts that would have been left out, and bytes left over. So what was decoded encodes to the same bytes again, and a
// flipped bit is rarely taken for data.
//
// Decoders copy: nothing they return shares memory with their argument. Their errors are of push.KindInternal, say
// which rule was broken and never what stood there.

// codecVersion begins every value.
const codecVersion = 1 + nextversion.Step

// appendVersion begins a value.
func appendVersion(dst []byte) []byte { return append(append(dst, codecVersion), nextversion.Part...) }

// Stored is an entry as stores keep it, under a key that tells its slot and position.
type Stored struct {
	Kind        EntryKind
	ID          push.MsgID
	Expires     push.MilliTime
	Size        int           // what it counts for in limits: the message's Size, RecallSize for a recall
	Filter      *push.Filter  // nil: all devices
	CollapseKey string        // of the message; empty for a recall
	Message     *push.Message // the body lies here; nil: it lies in the bucket of that ID, or it is a recall
}

// Flags of an entry.
const (
	entryFilter = 1 << 0
	entryInline = 1 << 1
	entryKey    = 1 << 2 // has a collapse key of its own: not inline
	entryFlags  = entryFilter | entryInline | entryKey
)

// AppendEntry appends: version, kind, flags, id, expires, size; then as the flags say filter, collapse key, and the
// message as AppendMessage writes it, up to the end. With a Message, CollapseKey is the message's and not written.
func AppendEntry(dst []byte, e *Stored) []byte {
	var flags byte
	if !e.Filter.IsZero() {
		flags |= entryFilter
	}
	switch {
	case e.Message != nil:
		flags |= entryInline
	case e.CollapseKey != "":
		flags |= entryKey
	}
	dst = append(appendVersion(dst), byte(e.Kind), flags)
	dst = binary.AppendUvarint(dst, uint64(e.ID))
	dst = binary.AppendUvarint(dst, uint64(e.Expires))
	dst = binary.AppendUvarint(dst, uint64(e.Size))
	if flags&entryFilter != 0 {
		dst = appendFilter(dst, e.Filter)
	}
	if flags&entryKey != 0 {
		dst = appendString(dst, e.CollapseKey)
	}
	if e.Message != nil {
		dst = AppendMessage(dst, e.Message)
	}
	return dst
}

// DecodeEntry reads what AppendEntry wrote.
func DecodeEntry(b []byte) (Stored, error) {
	d := decoder{b: b}
	e, flags := d.entryHead()
	if flags&entryFilter != 0 {
		e.Filter = d.filter()
	}
	if flags&entryKey != 0 {
		if e.CollapseKey = d.str(); e.CollapseKey == "" {
			d.fail("an empty collapse key")
		}
	}
	if flags&entryInline != 0 {
		e.Message = d.message()
		if d.err == nil {
			e.CollapseKey = e.Message.CollapseKey
		}
	}
	if err := d.end("entry"); err != nil {
		return Stored{}, err
	}
	return e, nil
}

// PeekEntry reads kind, id, expiry and size only, without looking at the rest: what scans for limits and expiry need.
func PeekEntry(b []byte) (Stored, error) {
	d := decoder{b: b}
	e, _ := d.entryHead()
	if d.err != nil {
		return Stored{}, wrapDecode("entry", d.err)
	}
	return e, nil
}

func (d *decoder) entryHead() (e Stored, flags byte) {
	d.version()
	e.Kind = EntryKind(d.byte())
	flags = d.byte()
	e.ID = push.MsgID(d.uint())
	e.Expires = push.MilliTime(d.uint())
	e.Size = d.count(maxSize)
	switch {
	case e.Kind > EntryRecall:
		d.fail("an unknown kind of entry")
	case flags&^byte(entryFlags) != 0 || flags&entryInline != 0 && flags&entryKey != 0:
		d.fail("unknown flags")
	case e.Kind == EntryRecall && flags&(entryInline|entryKey) != 0:
		d.fail("a recall with a message")
	}
	return e, flags
}

// Flags of a message.
const (
	messagePersistent = 1 << 0
	messageBinary     = 1 << 1
	messageHasRef     = 1 << 2
	messageHasKey     = 1 << 3
	messageHasHeaders = 1 << 4
	messageTask       = 1 << 5
	messageFlags      = messagePersistent | messageBinary | messageHasRef | messageHasKey | messageHasHeaders | messageTask
)

// AppendMessage appends: version, flags, id, created, expires; then as the flags say ref, collapse key, and the headers
// as their number and each one's name and value; then the body as a string.
func AppendMessage(dst []byte, m *push.Message) []byte {
	var flags byte
	set := func(on bool, f byte) {
		if on {
			flags |= f
		}
	}
	set(m.Persistent, messagePersistent)
	set(m.Kind == push.BodyBinary, messageBinary)
	set(m.Ref != "", messageHasRef)
	set(m.CollapseKey != "", messageHasKey)
	set(len(m.Headers) > 0, messageHasHeaders)
	set(m.Task, messageTask)
	dst = append(appendVersion(dst), flags)
	dst = binary.AppendUvarint(dst, uint64(m.ID))
	dst = binary.AppendUvarint(dst, uint64(m.Created))
	dst = binary.AppendUvarint(dst, uint64(m.Expires))
	if m.Ref != "" {
		dst = appendString(dst, m.Ref)
	}
	if m.CollapseKey != "" {
		dst = appendString(dst, m.CollapseKey)
	}
	if len(m.Headers) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(m.Headers)))
		for _, h := range m.Headers {
			dst = appendString(dst, h.Name)
			dst = appendString(dst, h.Value)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(m.Body)))
	return append(dst, m.Body...)
}

// DecodeMessage reads what AppendMessage wrote. An empty body is nil.
func DecodeMessage(b []byte) (*push.Message, error) {
	d := decoder{b: b}
	m := d.message()
	if err := d.end("message"); err != nil {
		return nil, err
	}
	return m, nil
}

func (d *decoder) message() *push.Message {
	d.version()
	flags := d.byte()
	if flags&^byte(messageFlags) != 0 {
		d.fail("unknown flags")
	}
	m := &push.Message{
		ID:         push.MsgID(d.uint()),
		Created:    push.MilliTime(d.uint()),
		Expires:    push.MilliTime(d.uint()),
		Persistent: flags&messagePersistent != 0,
		Task:       flags&messageTask != 0,
	}
	if flags&messageBinary != 0 {
		m.Kind = push.BodyBinary
	}
	if flags&messageHasRef != 0 {
		m.Ref = d.someString()
	}
	if flags&messageHasKey != 0 {
		m.CollapseKey = d.someString()
	}
	if flags&messageHasHeaders != 0 {
		m.Headers = make([]push.Header, d.some(2))
		for i := range m.Headers {
			m.Headers[i] = push.Header{Name: d.str(), Value: d.str()}
		}
	}
	if body := d.bytes(); len(body) > 0 {
		m.Body = append([]byte(nil), body...)
	}
	return m
}

// Flags of a filter.
const (
	filterPlatforms = 1 << 0
	filterDevices   = 1 << 1
	filterClasses   = 1 << 2
	filterTags      = 1 << 3
	filterFlags     = filterPlatforms | filterDevices | filterClasses | filterTags
)

// AppendFilter appends: version, flags; then as the flags say the set of platforms (one byte), number and names of
// devices and of classes, and the expression over tags. The zero filter, and nil, have no flags. Whoever reads a flag that it does
// not know refuses the entry: a filter of a later version is never taken for one that lets everybody through.
func AppendFilter(dst []byte, f *push.Filter) []byte {
	return appendFilter(appendVersion(dst), f)
}

// DecodeFilter reads what AppendFilter wrote; the zero filter is nil.
func DecodeFilter(b []byte) (*push.Filter, error) {
	d := decoder{b: b}
	d.version()
	var f *push.Filter
	if len(d.b) == 1 && d.b[0] == 0 {
		d.b = nil
	} else {
		f = d.filter()
	}
	if err := d.end("filter"); err != nil {
		return nil, err
	}
	return f, nil
}

func appendFilter(dst []byte, f *push.Filter) []byte {
	if f.IsZero() {
		return append(dst, 0)
	}
	var flags byte
	at := len(dst)
	dst = append(dst, 0)
	if f.Platforms != 0 {
		flags |= filterPlatforms
		dst = append(dst, byte(f.Platforms))
	}
	if len(f.Devices) > 0 {
		flags |= filterDevices
		dst = binary.AppendUvarint(dst, uint64(len(f.Devices)))
		for _, id := range f.Devices {
			dst = appendString(dst, string(id))
		}
	}
	if len(f.Classes) > 0 {
		flags |= filterClasses
		dst = binary.AppendUvarint(dst, uint64(len(f.Classes)))
		for _, c := range f.Classes {
			dst = appendString(dst, c)
		}
	}
	if f.Tags != nil {
		flags |= filterTags
		dst = appendTagExpr(dst, f.Tags)
	}
	dst[at] = flags
	return dst
}

// appendTagExpr appends, for each of All, Any and Not, the number of terms and each one: a tag as a string, or an empty
// string and then the expression in its place.
func appendTagExpr(dst []byte, e *push.TagExpr) []byte {
	for _, list := range [...][]push.TagTerm{e.All, e.Any, e.Not} {
		dst = binary.AppendUvarint(dst, uint64(len(list)))
		for _, t := range list {
			dst = appendString(dst, string(t.Tag))
			if t.Expr != nil {
				dst = appendTagExpr(dst, t.Expr)
			}
		}
	}
	return dst
}

// tagExpr reads an expression in canonical form and within its limits.
func (d *decoder) tagExpr() *push.TagExpr {
	terms := push.MaxTagTerms
	e := d.tagExprWithin(push.MaxTagLevels, &terms)
	if d.err == nil && (e.Check() != nil || !e.IsCanonical()) {
		d.fail("an expression over tags that nobody wrote like that")
	}
	return e
}

// tagExprWithin reads an expression of at most so many levels and terms, which bound what is allocated for it.
func (d *decoder) tagExprWithin(levels int, terms *int) *push.TagExpr {
	e := &push.TagExpr{}
	if levels == 0 {
		d.fail("an expression over tags with too many levels")
		return e
	}
	for _, list := range [...]*[]push.TagTerm{&e.All, &e.Any, &e.Not} {
		for n := d.count(uint64(*terms)); n > 0 && d.err == nil; n-- {
			t := push.TagTerm{Tag: push.Tag(d.str())}
			if t.Tag == "" {
				t.Expr = d.tagExprWithin(levels-1, terms)
			} else if *terms--; *terms < 0 {
				d.fail("an expression over tags with too many terms")
			}
			*list = append(*list, t)
		}
	}
	return e
}

// filter reads a filter that is not zero.
func (d *decoder) filter() *push.Filter {
	flags := d.byte()
	if flags == 0 || flags&^byte(filterFlags) != 0 {
		d.fail("unknown flags")
	}
	f := &push.Filter{}
	if flags&filterPlatforms != 0 {
		if f.Platforms = push.PlatformSet(d.byte()); f.Platforms == 0 {
			d.fail("an empty set of platforms")
		}
	}
	if flags&filterDevices != 0 {
		f.Devices = make([]push.DeviceID, d.some(1))
		for i := range f.Devices {
			f.Devices[i] = push.DeviceID(d.str())
		}
	}
	if flags&filterClasses != 0 {
		f.Classes = make([]string, d.some(1))
		for i := range f.Classes {
			f.Classes[i] = d.str()
		}
	}
	if flags&filterTags != 0 {
		f.Tags = d.tagExpr()
	}
	return f
}

// maxSize is the most that a stored count of bytes may be.
const maxSize = 1<<31 - 1

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// decoder reads from b and stops at the first error: every later read returns zero and takes nothing.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = push.Errorf(push.KindInternal, "corrupt_value", "%s", what)
	}
	d.b = nil
}

func (d *decoder) version() {
	switch v := d.byte(); {
	case v < 1 || v > codecVersion+1:
		d.fail("an unknown version")
	case v > 1:
		d.bytes()
	}
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail("too short")
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

// flag reads a byte that is 0 or 1.
func (d *decoder) flag() bool {
	c := d.byte()
	if c > 1 {
		d.fail("a truth value above 1")
	}
	return c == 1
}

func (d *decoder) uint() uint64 {
	n, l := binary.Uvarint(d.b)
	if l <= 0 || l > 1 && d.b[l-1] == 0 {
		d.fail("a malformed number")
		return 0
	}
	d.b = d.b[l:]
	return n
}

// count reads a number of at most most.
func (d *decoder) count(most uint64) int {
	n := d.uint()
	if n > most {
		d.fail("a number above its limit")
		return 0
	}
	return int(n)
}

// some reads how many things follow: at least one, each of at least size bytes, so that what is left bounds them.
func (d *decoder) some(size int) int {
	n := d.count(uint64(len(d.b) / size))
	if n == 0 {
		d.fail("an empty list")
	}
	return n
}

// bytes returns a part of the decoder's argument.
func (d *decoder) bytes() []byte {
	n := d.count(uint64(len(d.b)))
	if n > len(d.b) {
		d.fail("too short")
		return nil
	}
	s := d.b[:n]
	d.b = d.b[n:]
	return s
}

func (d *decoder) str() string { return string(d.bytes()) }

func (d *decoder) someString() string {
	s := d.str()
	if s == "" {
		d.fail("an empty string")
	}
	return s
}

// end reports the first error, or that something is left over.
func (d *decoder) end(what string) error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("bytes left over")
	}
	if d.err != nil {
		return wrapDecode(what, d.err)
	}
	return nil
}

func wrapDecode(what string, err error) error { return fmt.Errorf("saver: decode %s: %w", what, err) }
