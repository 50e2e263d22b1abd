package push

import (
	"fmt"
	"slices"
	"time"
)

// BodyKind says what the bytes of a body are.
type BodyKind uint8

const (
	// BodyJSON is one JSON value without insignificant white space (it is compacted when it is accepted, so that it
	// holds no line break and is the same bytes on every transport).
	BodyJSON BodyKind = iota
	// BodyBinary is any bytes. In JSON it travels as body_base64.
	BodyBinary
)

// Header is one name and value that the sender attached to a message.
type Header struct{ Name, Value string }

// Message is what a sender asked to deliver. It is immutable once published.
type Message struct {
	ID          MsgID
	Ref         string // the sender's own name for it, at most MaxRef bytes; may be empty
	Kind        BodyKind
	Body        []byte
	Headers     []Header // sorted by name, names unique
	CollapseKey string   // at most MaxCollapseKey bytes; empty: collapses nothing
	Created     MilliTime
	Expires     MilliTime // judged by the store's clock; zero on a non-persistent message
	Persistent  bool
	Task        bool // it is a task's: rooms count what becomes of it, under its ID. Clients are not told
}

// Size returns the bytes a message counts for in the limits of slots and queues: its variable parts and a fixed 64.
func (m *Message) Size() int {
	n := 64 + len(m.Body) + len(m.Ref) + len(m.CollapseKey)
	for _, h := range m.Headers {
		n += len(h.Name) + len(h.Value)
	}
	return n
}

// Check reports what is wrong with the attributes that a sender chose, nil if nothing is. It does not look into Body.
func (m *Message) Check() error {
	if len(m.Ref) > MaxRef {
		return fmt.Errorf("ref has at most %d bytes", MaxRef)
	}
	if err := checkText("ref", m.Ref); err != nil {
		return err
	}
	if len(m.CollapseKey) > MaxCollapseKey {
		return fmt.Errorf("collapse_key has at most %d bytes", MaxCollapseKey)
	}
	if err := checkText("collapse_key", m.CollapseKey); err != nil {
		return err
	}
	if len(m.Headers) > MaxHeaders {
		return fmt.Errorf("a message has at most %d headers", MaxHeaders)
	}
	n := 0
	for i, h := range m.Headers {
		if err := checkName("a header name", h.Name, MaxHeaderBytes); err != nil {
			return err
		}
		if err := checkText("a header value", h.Value); err != nil {
			return err
		}
		if i > 0 && m.Headers[i-1].Name >= h.Name {
			return fmt.Errorf("headers are sorted by name and each name stands once")
		}
		n += len(h.Name) + len(h.Value)
	}
	if n > MaxHeaderBytes {
		return fmt.Errorf("the headers of a message have at most %d bytes", MaxHeaderBytes)
	}
	return nil
}

// Filter narrows who reads an entry of a slot. The zero Filter lets every device through; of several parts each must
// let the device through.
type Filter struct {
	Devices   []DeviceID // sorted; empty: every device
	Platforms PlatformSet
	Classes   []string // sorted; empty: every class
	Tags      *TagExpr // canonical; nil: whatever the tags
}

// IsZero reports whether the filter lets every device through.
func (f *Filter) IsZero() bool {
	return f == nil || len(f.Devices) == 0 && f.Platforms == 0 && len(f.Classes) == 0 && f.Tags == nil
}

// ForDevices returns a copy that names no device yet, for those to be named that it is for alone. The rest is shared.
func (f *Filter) ForDevices() *Filter {
	if f == nil {
		return &Filter{}
	}
	return &Filter{Platforms: f.Platforms, Classes: f.Classes, Tags: f.Tags}
}

// Equal reports whether both filters are written the same.
func (f *Filter) Equal(g *Filter) bool {
	if f.IsZero() || g.IsZero() {
		return f.IsZero() && g.IsZero()
	}
	return f.Platforms == g.Platforms && slices.Equal(f.Devices, g.Devices) && slices.Equal(f.Classes, g.Classes) && f.Tags.Equal(g.Tags)
}

// DeviceFacts are what a filter can ask about a device beside its tags.
type DeviceFacts struct {
	Device   DeviceID
	Platform Platform
	Class    string
}

// Admits reports whether a device with these facts, and the tags of which has says so, reads the entry. has is asked only
// if the filter asks for tags; nil is a device that has none.
func (f *Filter) Admits(d DeviceFacts, has func(Tag) bool) bool {
	return f.AdmitsBesideTags(d) && (f == nil || f.Tags == nil || f.Tags.Matches(orNone(has)))
}

func orNone(has func(Tag) bool) func(Tag) bool {
	if has == nil {
		return func(Tag) bool { return false }
	}
	return has
}

// AdmitsBesideTags reports whether a device with these facts reads the entry if its tags are as the filter wants them.
func (f *Filter) AdmitsBesideTags(d DeviceFacts) bool {
	if f.IsZero() {
		return true
	}
	if len(f.Devices) > 0 {
		if _, ok := slices.BinarySearch(f.Devices, d.Device); !ok {
			return false
		}
	}
	if f.Platforms != 0 && !f.Platforms.Has(d.Platform) {
		return false
	}
	if len(f.Classes) > 0 {
		if _, ok := slices.BinarySearch(f.Classes, d.Class); !ok {
			return false
		}
	}
	return true
}

// Limits of a product that concern a slot and a message. The zero value of each field means the default beside it.
type Limits struct {
	BodyBytes      int           // 64 KiB
	OwnMessages    int           // 1 000 live entries in an own slot
	OwnBytes       int           // 4 MiB
	CommonMessages int           // 10 000 live entries in a common slot
	CommonBytes    int           // 64 MiB
	TTL            time.Duration // 7 days: the longest, and the default, time to live of a persistent message
	DevicesPerUser int           // 50
	DeviceUnseen   time.Duration // 60 days: a device that long unseen is forgotten
	KeyTTL         time.Duration // 1 h: how long an idempotency key is remembered; at most 24 h
	Sessions       int           // 0, no limit: live sessions at a time
}

// WithDefaults returns the limits with every zero field replaced by its default.
func (l Limits) WithDefaults() Limits {
	def(&l.BodyBytes, 64<<10)
	def(&l.OwnMessages, 1000)
	def(&l.OwnBytes, 4<<20)
	def(&l.CommonMessages, 10000)
	def(&l.CommonBytes, 64<<20)
	def(&l.TTL, 7*24*time.Hour)
	def(&l.DevicesPerUser, 50)
	def(&l.DeviceUnseen, 60*24*time.Hour)
	def(&l.KeyTTL, time.Hour)
	return l
}

func def[T ~int | ~int64](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}
