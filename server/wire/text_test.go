package wire

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
)

// marshal writes a string as encoding/json does without HTML escaping.
func marshal(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func TestAppendString_EscapesAsEncodingJSONDoes(t *testing.T) {
	check := func(s string) {
		t.Helper()
		if got, want := string(appendString(nil, s)), marshal(t, s); got != want {
			t.Fatalf("%q: got %s, want %s", s, got, want)
		}
	}
	for c := range 256 {
		check(string([]byte{byte(c)}))
		check(string([]byte{'a', byte(c), 'b'}))
	}
	for r := rune(0); r <= 0x10ffff; r += 13 {
		check(string(r))
	}
	s := newSource(4)
	for range 2000 {
		b := []byte(s.text(0, 200))
		if len(b) > 0 && s.IntN(2) == 0 {
			b[s.IntN(len(b))] = byte(s.Uint32()) // mostly not UTF-8 any more
		}
		check(string(b))
	}
}

func TestUnquote_ReadsEscapesAsEncodingJSONDoes(t *testing.T) {
	for _, s := range []string{
		`""`, `"\""`, `"\\"`, `"\/"`, `"\b\f\n\r\t"`, `"\u0041\u00e9\u2028"`, `"\uD83D\uDD14"`, `"\ud83d"`, `"\udd14"`,
		`"\ud83dx"`, `"\ud83d\n"`, `"\ud83d\u0041"`, `"\ud83d\ud83d\udd14"`, `"\udd14\ud83d"`, `"\ud83d\\udd14"`,
		`"\uFFFF\u0000"`, `"x\u"`, `"é\u00e9"`,
	} {
		var want string
		err := json.Unmarshal([]byte(s), &want)
		sc := scanner{b: []byte(s)}
		ok := sc.text() && sc.i == len(s)
		if ok != (err == nil) {
			t.Errorf("%s: scanner says %v, encoding/json %v", s, ok, err)
		}
		if !ok {
			continue
		}
		if got := unquote([]byte(s)); got != want {
			t.Errorf("%s: got %q, want %q", s, got, want)
		}
	}
}

func TestScanner_AcceptsWhatEncodingJSONAccepts(t *testing.T) {
	s := newSource(5)
	refused := 0
	for range 30000 {
		b := []byte(s.value(5))
		for n := s.IntN(4); n > 0; n-- {
			at := s.IntN(len(b) + 1)
			switch c := `{}[]:,"\ue0-+.19 tfn`[s.IntN(20)]; s.IntN(3) {
			case 0:
				b = append(b[:at], append([]byte{c}, b[at:]...)...)
			case 1:
				if at < len(b) {
					b[at] = c
				}
			default:
				b = append(b[:at], b[min(at+1, len(b)):]...)
			}
		}
		got, want := isValue(b), json.Valid(b) && len(bytes.TrimSpace(b)) == len(b)
		if got != want {
			t.Fatalf("%q: got %v, want %v", b, got, want)
		}
		if !want {
			refused++
		}
	}
	if refused < 1000 {
		t.Errorf("only %d values were not JSON: the test tests little", refused)
	}
}

func TestParseDigits_ReadsWhatIsInRange(t *testing.T) {
	for _, c := range []struct {
		s    string
		most uint64
		ok   bool
	}{
		{"0", 0, true}, {"1", 0, false}, {"2", 1, false}, {"9", 8, false}, {"255", 255, true}, {"256", 255, false},
		{"9007199254740991", maxNumber, true}, {"9007199254740992", maxNumber, false},
		{"9223372036854775807", math.MaxInt64, true}, {"9223372036854775808", math.MaxInt64, false},
		{"18446744073709551615", math.MaxUint64, true}, {"18446744073709551616", math.MaxUint64, false},
		{"99999999999999999999", math.MaxUint64, false}, {"100000000000000000000", math.MaxUint64, false},
		{"", 9, false}, {"00", 9, false}, {"01", 9, false}, {"-1", 9, false}, {"+1", 9, false}, {"1.0", 99, false},
		{"1e1", 99, false}, {" 1", 9, false}, {"1 ", 99, false}, {"a", 99, false}, {":", 99, false}, {"/", 99, false},
	} {
		n, ok := parseDigits([]byte(c.s), c.most)
		if ok != c.ok {
			t.Errorf("%q up to %d: got ok %v, want %v", c.s, c.most, ok, c.ok)
		}
		if want, _ := strconv.ParseUint(c.s, 10, 64); ok && n != want {
			t.Errorf("%q: got %d, want %d", c.s, n, want)
		}
	}
}
