package redisdb

import (
	"reflect"
	"strings"
	"testing"
)

const goodCall = "*3\r\n$15\r\n0123456789abcde\r\n$13\r\n1900000000000\r\n*3\r\n*4\r\n$2\r\n\r\n\r\n:-5\r\n$-1\r\n*1\r\n+OK\r\n:0\r\n$3\r\nERR\r\n"

func threeUnits() []*unit { return []*unit{{}, {}, {}} }

func TestDecode_GivesEachUnitItsAnswer(t *testing.T) {
	units := threeUnits()
	a, ok := splitCall([]byte(goodCall), units)
	if !ok || a.Lineage != 0x123456789abcde || a.Now != 1900000000000 {
		t.Fatalf("ok %v, answer %+v", ok, a)
	}
	replies, done, a := units[0].take(nil, make([]Command, 4))
	if want := []any{"\r\n", int64(-5), nil, []any{"OK"}}; !done || a.Err != nil || !reflect.DeepEqual(replies, want) {
		t.Errorf("replies %#v, error %v", replies, a.Err)
	}
	if _, done, a := units[0].take(nil, make([]Command, 3)); done || a.Err == nil {
		t.Error("four replies to three commands are taken")
	}
	if _, done, a := units[1].take(nil, make([]Command, 4)); done || a.Err != nil || a.Lineage == 0 {
		t.Errorf("a conflict: done %v, %+v", done, a)
	}
	if _, done, a := units[2].take(nil, make([]Command, 4)); done || a.Err == nil {
		t.Errorf("a refusal: done %v, error %v", done, a.Err)
	}
}

func TestDecode_RefusesWhatIsNoAnswer(t *testing.T) {
	for i := range len(goodCall) {
		if _, ok := splitCall([]byte(goodCall[:i]), threeUnits()); ok {
			t.Errorf("%d bytes of %d are taken", i, len(goodCall))
		}
	}
	for _, change := range [][2]string{
		{"*3\r\n$15", "*2\r\n$15"}, {"0123456789abcde", "0123456789abcdx"}, {"$13\r\n1900000000000", "$4\r\ntime"}, {"*3\r\n*4", "*2\r\n*4"},
		{"$2\r\n", "$99999\r\n"}, {"$2\r\n", "$9999999999999\r\n"}, {":0", "!0"}, {"*4", "*-7"}, {"$3\r\nERR\r\n", "$3\r\nERR\r\n:1\r\n"},
		{"$15\r\n0123456789abcde", "$14\r\n0123456789abcd"},
	} {
		bad := strings.Replace(goodCall, change[0], change[1], 1)
		if _, ok := splitCall([]byte(bad), threeUnits()); ok || bad == goodCall {
			t.Errorf("%q in place of %q is taken", change[1], change[0])
		}
	}
	deep := strings.Replace(goodCall, ":0\r\n", strings.Repeat("*1\r\n", 100)+":0\r\n", 1)
	if _, ok := splitCall([]byte(deep), threeUnits()); ok {
		t.Error("a hundred lists in each other are taken")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(goodCall))
	f.Add([]byte("*3\r\n$15\r\n0123456789abcde\r\n$1\r\n0\r\n*3\r\n*-1\r\n$-1\r\n*0\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		units := threeUnits()
		if _, ok := splitCall(raw, units); !ok {
			return
		}
		for _, u := range units {
			u.take(nil, make([]Command, 1))
		}
	})
}

func TestFate_SaysWhatSurelyWasNotExecuted(t *testing.T) {
	again := map[string]bool{
		"MOVED 7 127.0.0.1:7": true, "ASK 7 :7": true, "TRYAGAIN Multiple keys": true, "CLUSTERDOWN Hash slot not served": true, "LOADING x": true,
		"READONLY You can't write": true, "BUSY x": true, "MASTERDOWN x": true, "NOREPLICAS x": true, "MISCONF x": true, "ERR Function not found": true,
		"ERR user_function:7: oops": false, "OOM command not allowed": false, "NOAUTH x": false, "NOPERM x": false, "": false, "MOVED": false,
		"MOVED x y": false, "ASK 99999 :7": false, "UNBLOCKED x": false,
	}
	for text, want := range again {
		f := fateOf(text)
		if f.again != want || f.err == nil {
			t.Errorf("%q is sent again: %v, error %v", text, f.again, f.err)
		}
	}
}
