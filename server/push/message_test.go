package push

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestMessage_CheckHoldsAttributesToTheirLimits(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	headers := func(n int) (hs []Header) {
		for i := range n {
			hs = append(hs, Header{Name: fmt.Sprintf("h%02d", i), Value: "v"})
		}
		return hs
	}
	for _, c := range []struct {
		name string
		m    Message
		ok   bool
	}{
		{"nothing", Message{}, true},
		{"everything", Message{Ref: "order-7", CollapseKey: "orders", Headers: headers(2)}, true},
		{"ref at its limit", Message{Ref: long(MaxRef)}, true},
		{"ref beyond it", Message{Ref: long(MaxRef + 1)}, false},
		{"ref with a line break", Message{Ref: "a\nb"}, false},
		{"ref that is not UTF-8", Message{Ref: "\xff"}, false},
		{"collapse key at its limit", Message{CollapseKey: long(MaxCollapseKey)}, true},
		{"collapse key beyond it", Message{CollapseKey: long(MaxCollapseKey + 1)}, false},
		{"collapse key with NUL", Message{CollapseKey: "a\x00"}, false},
		{"headers at their limit", Message{Headers: headers(MaxHeaders)}, true},
		{"one header more", Message{Headers: headers(MaxHeaders + 1)}, false},
		{"header without a name", Message{Headers: []Header{{"", "v"}}}, false},
		{"header without a value", Message{Headers: []Header{{"a", ""}}}, true},
		{"header name with a line break", Message{Headers: []Header{{"a\r\n", "v"}}}, false},
		{"header value with a line break", Message{Headers: []Header{{"a", "v\r\nb: w"}}}, false},
		{"header value that is not UTF-8", Message{Headers: []Header{{"a", "\xc0\xaf"}}}, false},
		{"headers out of order", Message{Headers: []Header{{"b", ""}, {"a", ""}}}, false},
		{"header twice", Message{Headers: []Header{{"a", "1"}, {"a", "2"}}}, false},
		{"header bytes at their limit", Message{Headers: []Header{{"a", long(MaxHeaderBytes - 1)}}}, true},
		{"header bytes beyond it", Message{Headers: []Header{{"a", long(MaxHeaderBytes)}}}, false},
		{"header bytes beyond it together", Message{Headers: []Header{{"a", long(4000)}, {"b", long(95)}}}, false},
	} {
		if err := c.m.Check(); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want ok %v", c.name, err, c.ok)
		}
	}
}

func TestMessage_SizeCountsItsVariableParts(t *testing.T) {
	m := Message{Ref: "ab", CollapseKey: "cde", Body: make([]byte, 100), Headers: []Header{{"k", "vw"}, {"l", ""}}}
	if got, want := m.Size(), 64+2+3+100+3+1; got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

func TestFilter_AdmitsWhoPassesEveryPart(t *testing.T) {
	laptop := DeviceFacts{Device: "laptop", Platform: PlatformDesktop, Class: "work"}
	desktop := PlatformSet(0).Add(PlatformDesktop)
	vip, beta := &TagExpr{All: []TagTerm{{Tag: "vip"}}}, &TagExpr{All: []TagTerm{{Tag: "beta"}}}
	for _, c := range []struct {
		name string
		f    *Filter
		want bool
	}{
		{"no filter", nil, true},
		{"the zero filter", &Filter{}, true},
		{"its device", &Filter{Devices: []DeviceID{"laptop"}}, true},
		{"its device among others", &Filter{Devices: []DeviceID{"a", "laptop", "z"}}, true},
		{"other devices", &Filter{Devices: []DeviceID{"a", "laptop2", "z"}}, false},
		{"its platform", &Filter{Platforms: PlatformSet(0).Add(PlatformDesktop)}, true},
		{"its platform among others", &Filter{Platforms: PlatformSet(0).Add(PlatformWeb).Add(PlatformDesktop)}, true},
		{"another platform", &Filter{Platforms: PlatformSet(0).Add(PlatformOther)}, false},
		{"its class", &Filter{Classes: []string{"home", "work"}}, true},
		{"another class", &Filter{Classes: []string{"home"}}, false},
		{"its tag", &Filter{Tags: vip}, true},
		{"another tag", &Filter{Tags: beta}, false},
		{"all four", &Filter{[]DeviceID{"laptop"}, desktop, []string{"work"}, vip}, true},
		{"all but the device", &Filter{[]DeviceID{"x"}, desktop, []string{"work"}, vip}, false},
		{"all but the platform", &Filter{[]DeviceID{"laptop"}, PlatformSet(0).Add(PlatformTV), []string{"work"}, vip}, false},
		{"all but the class", &Filter{[]DeviceID{"laptop"}, desktop, []string{"x"}, vip}, false},
		{"all but the tag", &Filter{[]DeviceID{"laptop"}, desktop, []string{"work"}, beta}, false},
	} {
		if got := c.f.Admits(laptop, TagsIn([]Tag{"vip"})); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	// PlatformOther is the zero platform, yet a filter for it is not the zero filter.
	if f := (&Filter{Platforms: PlatformSet(0).Add(PlatformOther)}); f.IsZero() || !f.Admits(DeviceFacts{}, nil) {
		t.Error("a filter for other platforms is a filter")
	}
	// Who has no tags lacks each of them, and is meant by an expression that wants it so.
	if f := (&Filter{Tags: vip}); f.IsZero() || f.Admits(laptop, nil) || !f.AdmitsBesideTags(laptop) {
		t.Error("a filter for a tag is a filter")
	}
	if f := (&Filter{Tags: &TagExpr{Not: []TagTerm{{Tag: "vip"}}}}); !f.Admits(laptop, nil) {
		t.Error("a device without tags does not have this one")
	}
}

func TestFilter_EqualComparesWhatIsWritten(t *testing.T) {
	full := func() *Filter {
		return &Filter{
			[]DeviceID{"a", "b"}, PlatformSet(0).Add(PlatformWeb), []string{"c"}, &TagExpr{All: []TagTerm{{Tag: "t"}}},
		}
	}
	devices, platforms, classes, tags, none := full(), full(), full(), full(), full()
	tags.Tags, none.Tags = &TagExpr{Not: []TagTerm{{Tag: "t"}}}, nil
	devices.Devices = devices.Devices[:1]
	platforms.Platforms = platforms.Platforms.Add(PlatformTV)
	classes.Classes = []string{"d"}
	for _, c := range []struct {
		name string
		a, b *Filter
		want bool
	}{
		{"two nil", nil, nil, true}, {"nil and zero", nil, &Filter{}, true},
		{"nil and empty", nil, &Filter{Devices: []DeviceID{}, Classes: []string{}}, true}, {"alike", full(), full(), true},
		{"nil and one", nil, full(), false}, {"zero and one", &Filter{}, full(), false},
		{"devices", full(), devices, false}, {"platforms", full(), platforms, false}, {"classes", full(), classes, false},
		{"tags", full(), tags, false}, {"no tags", full(), none, false}, {"nothing but tags", nil, &Filter{Tags: tags.Tags}, false},
	} {
		if got := c.a.Equal(c.b); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
		if got := c.b.Equal(c.a); got != c.want {
			t.Errorf("%s, turned round: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestLimits_ZeroFieldsTakeTheirDefault(t *testing.T) {
	want := Limits{
		BodyBytes: 65536, OwnMessages: 1000, OwnBytes: 4194304, CommonMessages: 10000, CommonBytes: 67108864,
		TTL: 168 * time.Hour, DevicesPerUser: 50, DeviceUnseen: 1440 * time.Hour, KeyTTL: time.Hour,
	}
	if got := (Limits{}).WithDefaults(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	want.OwnMessages, want.TTL = 7, time.Minute
	if got := (Limits{OwnMessages: 7, TTL: time.Minute}).WithDefaults(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
