package center

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"carillon/server/push"
)

func testLimits() *Limits {
	l := Limits{}.withDefaults()
	return &l
}

func productLimits() push.Limits { return push.Limits{}.WithDefaults() }

// list returns n JSON strings.
func list(n int, format string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf(format, i)
	}
	return "[" + strings.Join(items, ",") + "]"
}

// levels returns an expression over tags of n levels.
func levels(n int) string {
	return strings.Repeat(`{"not":[`, n-1) + `{"all":["a"]}` + strings.Repeat(`]}`, n-1)
}

func headers(n int) string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprint("h", i)] = "v"
	}
	b, _ := json.Marshal(m)
	return string(b)
}

const (
	toAlice = `"to":{"users":["alice"]}`
	body1   = `"body":1`
)

// publishCases are bodies of POST /v1/messages and what is wrong with them.
var publishCases = []struct {
	name string
	body string
	want []string // place and code of each mistake; nil: none
}{
	{"least", `{` + toAlice + `,"message":{` + body1 + `}}`, nil},
	{"white space", " {\n" + toAlice + " ,\t\"message\" : { " + body1 + " } } ", nil},
	{"null is a body", `{` + toAlice + `,"message":{"body":null}}`, nil},
	{"bytes", `{` + toAlice + `,"message":{"body_base64":"AAE="}}`, nil},
	{"no bytes", `{` + toAlice + `,"message":{"body_base64":""}}`, nil},
	{"devices", `{"to":{"devices":[{"user":"alice","device":"a"},{"user":"alice","device":"b"}]},"message":{` + body1 + `}}`, nil},
	{"everyone", `{"to":{"everyone":true},"message":{` + body1 + `}}`, nil},
	{"everything", `{` + toAlice + `,"message":{` + body1 + `,"persistent":true,"ttl_seconds":60,"collapse_key":"k","headers":{"a":"","b":"c"},"ref":"r"},"validate_only":true}`, nil},
	{"whole number with fraction", `{` + toAlice + `,"message":{` + body1 + `,"ttl_seconds":6.0e1}}`, nil},
	{"longest names", `{"to":{"users":["` + strings.Repeat("é", 64) + `"]},"message":{` + body1 + `,"ref":"` + strings.Repeat("r", 128) + `"}}`, nil},
	{"most users", `{"to":{"users":` + list(1000, `"u%d"`) + `},"message":{` + body1 + `}}`, nil},
	{"most headers", `{` + toAlice + `,"message":{` + body1 + `,"headers":` + headers(16) + `}}`, nil},
	{"not persistent", `{` + toAlice + `,"message":{` + body1 + `,"persistent":false,"ref":"r"}}`, nil},

	{"empty object", `{}`, []string{"/message required", "/to required"}},
	{"not an object", `[]`, []string{" wrong_type"}},
	{"null", `null`, []string{" wrong_type"}},
	{"unknown member", `{` + toAlice + `,"message":{` + body1 + `},"too":1}`, []string{"/too unknown_member"}},
	{"key in the body", `{` + toAlice + `,"message":{` + body1 + `},"idempotency_key":"a"}`, []string{"/idempotency_key unknown_member"}},
	{"unknown member of message", `{` + toAlice + `,"message":{` + body1 + `,"ttl":1}}`, []string{"/message/ttl unknown_member"}},
	{"no audience", `{"to":{},"message":{` + body1 + `}}`, []string{"/to not_one_of"}},
	{"two audiences", `{"to":{"users":["alice"],"everyone":true},"message":{` + body1 + `}}`, []string{"/to not_one_of"}},
	{"everyone false", `{"to":{"everyone":false},"message":{` + body1 + `}}`, []string{"/to/everyone unknown_value"}},
	{"tags", `{"to":{"tags":{"all":["vip"]}},"message":{` + body1 + `}}`, nil},
	{"tags in every list", `{"to":{"tags":{"any":["a",{"all":["b","c"]}],"all":["vip"],"not":["trial",{"any":["x","y"]}]}},"message":{` + body1 + `}}`, nil},
	{"most terms", `{"to":{"tags":{"any":` + list(15, `"t%d"`) + `,"not":["a"]}},"message":{` + body1 + `}}`, nil},
	{"most levels", `{"to":{"tags":` + levels(8) + `},"message":{` + body1 + `}}`, nil},
	{"tags, platforms and classes", `{"to":{"classes":["mobile"],"tags":{"not":["a"]},"platforms":["ios","android"]},"message":{` + body1 + `}}`, nil},
	{"everyone on platforms", `{"to":{"everyone":true,"platforms":["web"]},"message":{` + body1 + `}}`, nil},
	{"users of classes", `{"to":{"users":["alice"],"classes":["a","b"]},"message":{` + body1 + `}}`, nil},
	{"tags twice", `{"to":{"tags":{"all":["a","a"]}},"message":{` + body1 + `}}`, nil},
	{"tags and everyone", `{"to":{"tags":{"all":["a"]},"everyone":true},"message":{` + body1 + `}}`, []string{"/to not_one_of"}},
	{"platforms alone", `{"to":{"platforms":["web"],"classes":["a"]},"message":{` + body1 + `}}`, []string{"/to not_one_of"}},
	{"tags as a list", `{"to":{"tags":["a"]},"message":{` + body1 + `}}`, []string{"/to/tags wrong_type"}},
	{"no expression", `{"to":{"tags":{}},"message":{` + body1 + `}}`, []string{"/to/tags too_few"}},
	{"no expression below", `{"to":{"tags":{"all":[{}]}},"message":{` + body1 + `}}`, []string{"/to/tags/all/0 too_few"}},
	{"no terms", `{"to":{"tags":{"all":["a"],"not":[]}},"message":{` + body1 + `}}`, []string{"/to/tags/not too_few"}},
	{"an unknown list", `{"to":{"tags":{"all":["a"],"or":["b"]}},"message":{` + body1 + `}}`, []string{"/to/tags/or unknown_member"}},
	{"a tag is a number", `{"to":{"tags":{"all":["a",{"any":[5]}]}},"message":{` + body1 + `}}`, []string{"/to/tags/all/1/any/0 wrong_type"}},
	{"a tag is empty", `{"to":{"tags":{"all":[""]}},"message":{` + body1 + `}}`, []string{"/to/tags/all/0 empty"}},
	{"a tag is too long", `{"to":{"tags":{"all":["` + strings.Repeat("é", 65) + `"]}},"message":{` + body1 + `}}`, []string{"/to/tags/all/0 too_long"}},
	{"too many terms in a list", `{"to":{"tags":{"any":` + list(17, `"t%d"`) + `}},"message":{` + body1 + `}}`, []string{"/to/tags/any too_many"}},
	{"too many terms in all", `{"to":{"tags":{"any":` + list(9, `"t%d"`) + `,"not":[{"all":` + list(8, `"t%d"`) + `}]}},"message":{` + body1 + `}}`, []string{"/to/tags too_many"}},
	{"too many levels", `{"to":{"tags":` + levels(9) + `},"message":{` + body1 + `}}`, []string{"/to/tags" + strings.Repeat("/not/0", 8) + " too_deep"}},
	{"far too many levels", `{"to":{"tags":` + levels(5000) + `},"message":{` + body1 + `}}`, []string{"/to/tags" + strings.Repeat("/not/0", 8) + " too_deep"}},
	{"no platforms", `{"to":{"everyone":true,"platforms":[]},"message":{` + body1 + `}}`, []string{"/to/platforms too_few"}},
	{"an unknown platform", `{"to":{"everyone":true,"platforms":["web","fridge"]},"message":{` + body1 + `}}`, []string{"/to/platforms/1 unknown_value"}},
	{"a platform twice", `{"to":{"everyone":true,"platforms":["web","web"]},"message":{` + body1 + `}}`, []string{"/to/platforms/1 duplicate"}},
	{"a class of other letters", `{"to":{"everyone":true,"classes":["Mobile"]},"message":{` + body1 + `}}`, []string{"/to/classes/0 bad_format"}},
	{"a class twice", `{"to":{"everyone":true,"classes":["a","a"]},"message":{` + body1 + `}}`, []string{"/to/classes/1 duplicate"}},
	{"too many classes", `{"to":{"everyone":true,"classes":` + list(17, `"c%d"`) + `},"message":{` + body1 + `}}`, []string{"/to/classes too_many"}},
	{"no users", `{"to":{"users":[]},"message":{` + body1 + `}}`, []string{"/to/users too_few"}},
	{"too many users", `{"to":{"users":` + list(1001, `"u%d"`) + `},"message":{` + body1 + `}}`, []string{"/to/users too_many"}},
	{"too many devices", `{"to":{"devices":` + list(1001, `{"user":"alice","device":"d%d"}`) + `},"message":{` + body1 + `}}`, []string{"/to/devices too_many"}},
	{"a user twice", `{"to":{"users":["bob","alice","bob","alice","bob"]},"message":{` + body1 + `}}`,
		[]string{"/to/users/2 duplicate", "/to/users/3 duplicate", "/to/users/4 duplicate"}},
	{"a device twice", `{"to":{"devices":[{"user":"a","device":"x"},{"user":"b","device":"x"},{"user":"a","device":"x"}]},"message":{` + body1 + `}}`, []string{"/to/devices/2 duplicate"}},
	{"user is a number", `{"to":{"users":["a",5]},"message":{` + body1 + `}}`, []string{"/to/users/1 wrong_type"}},
	{"user is empty", `{"to":{"users":[""]},"message":{` + body1 + `}}`, []string{"/to/users/0 empty"}},
	{"user is too long", `{"to":{"users":["` + strings.Repeat("u", 129) + `"]},"message":{` + body1 + `}}`, []string{"/to/users/0 too_long"}},
	{"user has too many bytes", `{"to":{"users":["` + strings.Repeat("é", 65) + `"]},"message":{` + body1 + `}}`, []string{"/to/users/0 too_long"}},
	{"user with a control character", `{"to":{"users":["a\u007f"]},"message":{` + body1 + `}}`, []string{"/to/users/0 control_character"}},
	{"device without user", `{"to":{"devices":[{"device":"x"}]},"message":{` + body1 + `}}`, []string{"/to/devices/0/user required"}},
	{"device is empty", `{"to":{"devices":[{"user":"a","device":""}]},"message":{` + body1 + `}}`, []string{"/to/devices/0/device empty"}},
	{"no body", `{` + toAlice + `,"message":{}}`, []string{"/message not_one_of"}},
	{"two bodies", `{` + toAlice + `,"message":{` + body1 + `,"body_base64":""}}`, []string{"/message not_one_of"}},
	{"not base64", `{` + toAlice + `,"message":{"body_base64":"AAE"}}`, []string{"/message/body_base64 bad_base64"}},
	{"hidden bits", `{` + toAlice + `,"message":{"body_base64":"AAF="}}`, []string{"/message/body_base64 bad_base64"}},
	{"line break in base64", `{` + toAlice + `,"message":{"body_base64":"AA\n=="}}`, []string{"/message/body_base64 bad_base64"}},
	{"ttl of nothing", `{` + toAlice + `,"message":{` + body1 + `,"ttl_seconds":0}}`, []string{"/message/ttl_seconds too_small"}},
	{"ttl too long", `{` + toAlice + `,"message":{` + body1 + `,"ttl_seconds":604801}}`, []string{"/message/ttl_seconds too_large"}},
	{"ttl is a fraction", `{` + toAlice + `,"message":{` + body1 + `,"ttl_seconds":1.5}}`, []string{"/message/ttl_seconds wrong_type"}},
	{"ttl is text", `{` + toAlice + `,"message":{` + body1 + `,"ttl_seconds":"60"}}`, []string{"/message/ttl_seconds wrong_type"}},
	{"ttl, not persistent", `{` + toAlice + `,"message":{` + body1 + `,"ttl_seconds":60,"persistent":false}}`, []string{"/message/ttl_seconds not_allowed"}},
	{"collapse key, not persistent", `{` + toAlice + `,"message":{"persistent":false,` + body1 + `,"collapse_key":"k"}}`, []string{"/message/collapse_key not_allowed"}},
	{"persistent is null", `{` + toAlice + `,"message":{` + body1 + `,"persistent":null}}`, []string{"/message/persistent wrong_type"}},
	{"collapse key is empty", `{` + toAlice + `,"message":{` + body1 + `,"collapse_key":""}}`, []string{"/message/collapse_key empty"}},
	{"collapse key is too long", `{` + toAlice + `,"message":{` + body1 + `,"collapse_key":"` + strings.Repeat("k", 129) + `"}}`, []string{"/message/collapse_key too_long"}},
	{"ref is too long", `{` + toAlice + `,"message":{` + body1 + `,"ref":"` + strings.Repeat("k", 129) + `"}}`, []string{"/message/ref too_long"}},
	{"too many headers", `{` + toAlice + `,"message":{` + body1 + `,"headers":` + headers(17) + `}}`, []string{"/message/headers too_many"}},
	{"headers too long", `{` + toAlice + `,"message":{` + body1 + `,"headers":{"a":"` + strings.Repeat("v", 4095) + `","b":""}}}`, []string{"/message/headers too_long"}},
	{"header without name", `{` + toAlice + `,"message":{` + body1 + `,"headers":{"":"v"}}}`, []string{"/message/headers/ empty"}},
	{"header is a number", `{` + toAlice + `,"message":{` + body1 + `,"headers":{"a":1}}}`, []string{"/message/headers/a wrong_type"}},
	{"header with a line break", `{` + toAlice + `,"message":{` + body1 + `,"headers":{"a":"b\r\nc"}}}`, []string{"/message/headers/a control_character"}},
	{"validate_only is text", `{` + toAlice + `,"message":{` + body1 + `},"validate_only":"yes"}`, []string{"/validate_only wrong_type"}},
	{"several", `{"to":{"users":[1]},"message":{"ref":"","persistent":1},"x":1}`,
		[]string{"/message not_one_of", "/message/persistent wrong_type", "/message/ref empty", "/to/users/0 wrong_type", "/x unknown_member"}},
}

// onlyOurs are mistakes that a schema cannot see, because a JSON library has hidden them by then.
var onlyOurs = []struct {
	name string
	body string
	want []string
}{
	{"a member twice", `{` + toAlice + `,` + toAlice + `,"message":{` + body1 + `}}`, []string{"/to duplicate_member"}},
	{"a header twice", `{` + toAlice + `,"message":{` + body1 + `,"headers":{"a":"1","\u0061":"2"}}}`, []string{"/message/headers duplicate_member"}},
	{"half a surrogate pair", `{"to":{"users":["\ud800"]},"message":{` + body1 + `}}`, []string{"/to/users/0 bad_text"}},
	{"body too deep", `{` + toAlice + `,"message":{"body":` + strings.Repeat("[", 61) + strings.Repeat("]", 61) + `}}`, []string{"/message/body too_deep"}},
}

// places returns the mistakes of a request as "place code", sorted; nil if err is nil.
func places(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var bad *invalid
	if !errors.As(err, &bad) {
		t.Fatalf("got %v, want mistakes with places", err)
	}
	var out []string
	for _, f := range bad.fields {
		out = append(out, f.Pointer+" "+string(f.Code))
	}
	slices.Sort(out)
	return out
}

func TestParsePublish_SaysWhereAndWhat(t *testing.T) {
	for _, c := range slices.Concat(publishCases, onlyOurs) {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := parsePublish([]byte(c.body), testLimits(), productLimits())
			if got := places(t, err); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestParseBatch_RefusedAsAWhole(t *testing.T) {
	item := `{` + toAlice + `,"message":{` + body1 + `}}`
	cases := []struct {
		name string
		body string
		want []string
	}{
		{"no messages", `{"messages":[]}`, []string{"/messages too_few"}},
		{"missing", `{}`, []string{"/messages required"}},
		{"too many", `{"messages":[` + strings.Repeat(item+",", 500) + item + `]}`, []string{"/messages too_many"}},
		{"not an array", `{"messages":` + item + `}`, []string{"/messages wrong_type"}},
		{"unknown member", `{"messages":[` + item + `],"x":1}`, []string{"/x unknown_member"}},
	}
	for _, c := range cases {
		_, _, err := parseBatch([]byte(c.body), testLimits(), productLimits())
		if got := places(t, err); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestParseBatch_PlacesAreThoseOfTheWholeDocument(t *testing.T) {
	body := `{"messages":[{` + toAlice + `,"message":{` + body1 + `}},{"to":{"users":[""]},"message":{` + body1 + `},"idempotency_key":"\u00e9"}]}`
	items, _, err := parseBatch([]byte(body), testLimits(), productLimits())
	if err != nil || len(items) != 2 || items[0].err != nil {
		t.Fatalf("got %v %v, want one good message and one bad", items, err)
	}
	want := []string{"/messages/1/idempotency_key bad_format", "/messages/1/to/users/0 empty"}
	if got := places(t, items[1].err); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParsePublish_Canonical(t *testing.T) {
	same := []string{
		`{"to":{"users":["alice","bob"]},"message":{"body":{"a":[1,2]},"headers":{"x":"1","y":"2"}}}`,
		` { "message" : { "headers" : { "y":"2", "x":"1" } , "body":{ "a" : [ 1 ,2 ] } , "persistent":true } , "to":{"users":["bob","\u0061lice"]}, "validate_only":false } `,
	}
	other := []string{
		`{"to":{"users":["alice","bob","cathy"]},"message":{"body":{"a":[1,2]},"headers":{"x":"1","y":"2"}}}`,
		`{"to":{"users":["alice","bob"]},"message":{"body":{"a":[2,1]},"headers":{"x":"1","y":"2"}}}`,
		`{"to":{"users":["alice","bob"]},"message":{"body":{"a":[1,2]},"headers":{"x":"1","y":"2"},"ttl_seconds":604800}}`,
		`{"to":{"users":["alice","bob"]},"message":{"body":{"a":[1,2]},"headers":{"x":"1","y":"2"},"persistent":false}}`,
		`{"to":{"users":["alice","bob"]},"message":{"body":{"a":[1,2]},"headers":{"x":"12","y":""}}}`,
		`{"to":{"users":["alice","bob"]},"message":{"body":{"a":[1,2]},"headers":{"x":"1","y":"2"},"ref":"r"}}`,
		`{"to":{"users":["alice","bob"]},"message":{"body":{"a":[1,2]},"headers":{"x":"1","y":"2"},"collapse_key":"r"}}`,
		`{"to":{"users":["alice","bob"]},"message":{"body_base64":"eyJhIjpbMSwyXX0=","headers":{"x":"1","y":"2"}}}`,
		`{"to":{"devices":[{"user":"alice","device":"b"},{"user":"bob","device":"b"}]},"message":{"body":{"a":[1,2]},"headers":{"x":"1","y":"2"}}}`,
		`{"to":{"devices":[{"user":"alice","device":"b"},{"user":"bob","device":"c"}]},"message":{"body":{"a":[1,2]},"headers":{"x":"1","y":"2"}}}`,
		`{"to":{"everyone":true},"message":{"body":{"a":[1,2]},"headers":{"x":"1","y":"2"}}}`,
	}
	seen := map[[32]byte]string{}
	for i, body := range append(same, other...) {
		req, _, err := parsePublish([]byte(body), testLimits(), productLimits())
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		d := req.digest()
		before, known := seen[d]
		if want := i == 1; known != want {
			t.Errorf("%s\nis the same as %q: %v, want %v", body, before, known, want)
		}
		seen[d] = body
	}
}

func TestParsePublish_GroupsDevicesByUser(t *testing.T) {
	body := `{"to":{"devices":[{"user":"bob","device":"b"},{"user":"alice","device":"z"},{"user":"bob","device":"a"}]},"message":{` + body1 + `}}`
	req, _, err := parsePublish([]byte(body), testLimits(), productLimits())
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(req.devices)
	for _, tg := range req.targets {
		got += fmt.Sprint(" ", tg.User, tg.Filter.Devices)
	}
	if want := "3 alice[z] bob[a b]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParsePublish_ShorterTTLOfAProduct(t *testing.T) {
	of := productLimits()
	of.TTL = time.Minute
	body := `{` + toAlice + `,"message":{` + body1 + `,"ttl_seconds":61}}`
	_, _, err := parsePublish([]byte(body), testLimits(), of)
	if got, want := places(t, err), []string{"/message/ttl_seconds too_large"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParsePublish_MistakesNeverQuote(t *testing.T) {
	const secret = "hunter2"
	bodies := []string{
		`{"to":{"users":["hunter2\u0000"]},"message":{"body":1,"ref":"` + strings.Repeat("hunter2", 40) + `"}}`,
		`{"to":{"users":[{"hunter2":1}]},"message":{"body_base64":"hunter2","ttl_seconds":"hunter2"}}`,
		`{"to":{"users":["a"]},"message":{"body":1},"validate_only":"hunter2"}`, `"hunter2"`, `{"to": hunter2}`, `{"to":"hunter2`,
	}
	c := &Center{}
	for _, body := range bodies {
		_, _, err := parsePublish([]byte(body), testLimits(), productLimits())
		if err == nil {
			t.Errorf("%s passes", body)
			continue
		}
		shown, _ := json.Marshal(c.problemOf(err))
		if strings.Contains(string(shown)+err.Error(), secret) {
			t.Errorf("%s: the problem quotes: %s", body, shown)
		}
	}
}

func FuzzPublishBody(f *testing.F) {
	for _, c := range slices.Concat(publishCases, onlyOurs) {
		if len(c.body) < 2000 {
			f.Add([]byte(c.body))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s := loadContract(t).schema(t, "/components/schemas/PublishRequest")
		req, _, err := parsePublish(body, testLimits(), productLimits())
		if err != nil {
			return // being stricter is tested with tables
		}
		if err := judge(s, body); err != nil {
			t.Fatalf("accepted against the contract: %v", err)
		}
		if err := req.message.Check(); err != nil {
			t.Fatalf("accepted a message that breaks a rule: %v", err)
		}
		if req.message.Kind == push.BodyJSON && !json.Valid(req.message.Body) {
			t.Fatal("the body is not JSON any more")
		}
		for _, tg := range req.targets {
			if err := tg.User.Check(); err != nil {
				t.Fatalf("accepted a user: %v", err)
			}
		}
	})
}
