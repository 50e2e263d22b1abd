package center

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"carillon/server/catalog"
	"carillon/server/push"
)

// adminCases are bodies of the admin interface, by schema, and what is wrong with them.
var adminCases = []struct {
	schema string
	body   string
	want   []string
}{
	{"ProductCreate", `{"id":"shop"}`, nil},
	{"ProductCreate", `{"id":"shop-2_x","name":"Läden","shards":1024,"token_lifetime_seconds":60,"limits":{"ttl_seconds":null,"own_messages":5},"first_visit":{"first":"head","later":null}}`, nil},
	{"ProductCreate", `{}`, []string{"/id required"}},
	{"ProductCreate", `{"id":"Shop"}`, []string{"/id bad_format"}},
	{"ProductCreate", `{"id":"-shop"}`, []string{"/id bad_format"}},
	{"ProductCreate", `{"id":""}`, []string{"/id bad_format"}},
	{"ProductCreate", `{"id":"shop","shards":0}`, []string{"/shards too_small"}},
	{"ProductCreate", `{"id":"shop","shards":1025}`, []string{"/shards too_large"}},
	{"ProductCreate", `{"id":"shop","disabled":true}`, []string{"/disabled unknown_member"}},
	{"ProductCreate", `{"id":"shop","name":"` + strings.Repeat("é", 101) + `"}`, []string{"/name too_long"}},
	{"ProductCreate", `{"id":"shop","name":"a\u0085"}`, []string{"/name control_character"}},
	{"ProductPatch", `{"disabled":true}`, nil},
	{"ProductPatch", `{"name":"","token_lifetime_seconds":null}`, nil},
	{"ProductPatch", `{}`, []string{" too_few"}},
	{"ProductPatch", `{"id":"x"}`, []string{"/id unknown_member", " too_few"}},
	{"ProductPatch", `{"limits":{}}`, []string{"/limits too_few"}},
	{"ProductPatch", `{"limits":{"ttl_seconds":604801,"key_ttl_seconds":59,"body_bytes":65537,"own_bytes":1}}`,
		[]string{"/limits/body_bytes too_large", "/limits/key_ttl_seconds too_small", "/limits/own_bytes too_small", "/limits/ttl_seconds too_large"}},
	{"ProductPatch", `{"limits":{"sessions":null}}`, nil},
	{"ProductPatch", `{"limits":{"sessions":0}}`, []string{"/limits/sessions too_small"}},
	{"ProductPatch", `{"first_visit":{"common":"tail"}}`, []string{"/first_visit/common unknown_value"}},
	{"ProductPatch", `{"first_visit":{"common":1}}`, []string{"/first_visit/common wrong_type"}},
	{"ProductPatch", `{"jwks_url":null}`, nil},
	{"ProductPatch", `{"jwks_url":"https://keys.example.com:8443/a?b=c"}`, nil},
	{"ProductCreate", `{"id":"shop","jwks_url":"http://localhost:9000/keys"}`, nil},
	{"ProductPatch", `{"jwks_url":""}`, []string{"/jwks_url empty"}},
	{"ProductPatch", `{"jwks_url":5}`, []string{"/jwks_url wrong_type"}},
	{"ProductPatch", `{"jwks_url":"ftp://example.com/keys"}`, []string{"/jwks_url bad_format"}},
	{"ProductPatch", `{"jwks_url":"https://user:secret@example.com/keys"}`, []string{"/jwks_url bad_format"}},
	{"ProductPatch", `{"jwks_url":"https://example.com/keys#a"}`, []string{"/jwks_url bad_format"}},
	{"ProductPatch", `{"jwks_url":"https://example.com/ü"}`, []string{"/jwks_url bad_format"}},
	{"ProductPatch", `{"jwks_url":"https://example.com/` + strings.Repeat("k", 1024) + `"}`, []string{"/jwks_url too_long"}},
	{"DeviceKeyCreate", `{"alg":"HS256"}`, nil},
	{"DeviceKeyCreate", `{"alg":"HS256","id":"k.1_-","name":"n","secret_base64":"` + strings.Repeat("AAAA", 16) + `"}`, nil},
	{"ProductCreate", `{"id":"shop","session_policy":{"rules":[{"scope":"account","max":1}]}}`, nil},
	{"ProductPatch", `{"session_policy":null}`, nil},
	{"ProductPatch", `{"session_policy":{}}`, nil},
	{"ProductPatch", `{"session_policy":{"classes":{"web":"a","android":"b","ios":"b","desktop":"c_1","tablet":"d-2","tv":"e","other":"` + strings.Repeat("f", 32) + `"},"default_class":"rest","rules":[{"scope":"class","of":"b","max":1,"on_excess":"reject_new"},{"scope":"platform","of":"tv","max":1000},{"scope":"device","max":1,"on_excess":"kick_oldest"}]}}`, nil},
	{"ProductPatch", `{"session_policy":[]}`, []string{"/session_policy wrong_type"}},
	{"ProductPatch", `{"session_policy":{"x":1}}`, []string{"/session_policy/x unknown_member"}},
	{"ProductPatch", `{"session_policy":{"classes":{"windows":"pc"}}}`, []string{"/session_policy/classes/windows unknown_member"}},
	{"ProductPatch", `{"session_policy":{"classes":{"tv":""},"default_class":"A"}}`, []string{"/session_policy/classes/tv bad_format", "/session_policy/default_class bad_format"}},
	{"ProductPatch", `{"session_policy":{"default_class":"` + strings.Repeat("f", 33) + `"}}`, []string{"/session_policy/default_class bad_format"}},
	{"ProductPatch", `{"session_policy":{"rules":[{}]}}`, []string{"/session_policy/rules/0/max required", "/session_policy/rules/0/scope required"}},
	{"ProductPatch", `{"session_policy":{"rules":[{"scope":"house","max":0,"on_excess":"ask","of":"A","x":1}]}}`,
		[]string{"/session_policy/rules/0/max too_small", "/session_policy/rules/0/of bad_format", "/session_policy/rules/0/on_excess unknown_value", "/session_policy/rules/0/scope unknown_value", "/session_policy/rules/0/x unknown_member"}},
	{"ProductPatch", `{"session_policy":{"rules":[{"scope":"account","max":1001}]}}`, []string{"/session_policy/rules/0/max too_large"}},
	{"ProductPatch", `{"session_policy":{"rules":[` + strings.Repeat(`{"scope":"account","max":1},`, 16) + `{"scope":"account","max":1}]}}`, []string{"/session_policy/rules too_many"}},
	{"DeviceKeyCreate", `{"alg":"EdDSA","public_key":"x"}`, nil},
	{"DeviceKeyCreate", `{"alg":"none"}`, []string{"/alg unknown_value"}},
	{"DeviceKeyCreate", `{"id":"k"}`, []string{"/alg required"}},
	{"DeviceKeyCreate", `{"alg":"HS256","id":"a b"}`, []string{"/id bad_format"}},
	{"DeviceKeyCreate", `{"alg":"HS256","public_key":"x"}`, []string{"/public_key not_allowed"}},
	{"DeviceKeyCreate", `{"alg":"RS256"}`, []string{"/public_key required"}},
	{"DeviceKeyCreate", `{"alg":"RS256","public_key":"x","secret_base64":"AAAA"}`, []string{"/secret_base64 not_allowed"}},
	{"DeviceKeyCreate", `{"alg":"HS256","secret_base64":"AAA"}`, []string{"/secret_base64 bad_base64"}},
	{"DeviceKeyCreate", `{"alg":"HS256","secret_base64":"` + strings.Repeat("AAAA", 343) + `"}`, []string{"/secret_base64 too_long"}},
	{"ApiKeyCreate", `{"scopes":["messages:write","*"],"expires":"2030-01-01T00:00:00Z"}`, nil},
	{"ApiKeyCreate", `{}`, []string{"/scopes required"}},
	{"ApiKeyCreate", `{"scopes":[]}`, []string{"/scopes too_few"}},
	{"ApiKeyCreate", `{"scopes":["root"]}`, []string{"/scopes/0 unknown_value"}},
	{"ApiKeyCreate", `{"scopes":["*","*"]}`, []string{"/scopes/1 duplicate"}},
	{"ApiKeyCreate", `{"scopes":["*"],"expires":"tomorrow"}`, []string{"/expires bad_format"}},
	{"BackupRequest", `{"directory":"/backups/1"}`, nil},
	{"BackupRequest", `{"directory":""}`, []string{"/directory empty"}},
	{"BackupRequest", `{"directory":"a\u0000"}`, []string{"/directory control_character"}},
	{"BackupRequest", `{}`, []string{"/directory required"}},
}

func TestParseAdmin_SaysWhereAndWhat_AndAgreesWithTheContract(t *testing.T) {
	parse := map[string]func([]byte) error{
		"ProductCreate":   func(b []byte) error { _, err := parseProduct(b); return err },
		"ProductPatch":    func(b []byte) error { return patchProduct(b, new(catalog.Product)) },
		"DeviceKeyCreate": func(b []byte) error { _, err := parseDeviceKey(b); return err },
		"ApiKeyCreate":    func(b []byte) error { _, err := parseAPIKey(b); return err },
		"BackupRequest":   func(b []byte) error { _, err := parseBackup(b); return err },
	}
	for _, c := range adminCases {
		slices.Sort(c.want)
		if got := places(t, parse[c.schema]([]byte(c.body))); !slices.Equal(got, c.want) {
			t.Errorf("%s %s:\n got %q\nwant %q", c.schema, c.body, got, c.want)
		}
		theirs := judge(loadContract(t).schema(t, "/components/schemas/"+c.schema), []byte(c.body))
		if (theirs == nil) != (c.want == nil) {
			t.Errorf("%s %s: the contract says %v, want %v", c.schema, c.body, theirs, c.want)
		}
	}
}

// What single values of a session policy cannot tell is noted for all of it; a schema cannot say it.
func TestParseAdmin_SessionPolicyThatCannotBeMeantIsRefused(t *testing.T) {
	for _, policy := range []string{
		`{"rules":[{"scope":"account","max":1},{"scope":"account","max":2}]}`,
		`{"rules":[{"scope":"account","of":"alice","max":1}]}`,
		`{"rules":[{"scope":"class","of":"mobile","max":1}]}`,
		`{"rules":[{"scope":"platform","of":"windows","max":1}]}`,
		`{"rules":[{"scope":"device","max":2}]}`,
		`{"rules":[{"scope":"device","max":1,"on_excess":"reject_new"}]}`,
	} {
		err := patchProduct([]byte(`{"session_policy":`+policy+`}`), new(catalog.Product))
		if got, want := places(t, err), []string{"/session_policy not_allowed"}; !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", policy, got, want)
		}
	}
}

func TestSessionPolicyWords_AreThoseOfTheContract(t *testing.T) {
	c := loadContract(t)
	for schema, words := range map[string][]string{"SessionScope": scopeWords, "OnExcess": excessWords, "Platform": platformWords} {
		if got, want := slices.Sorted(slices.Values(words)), enumOf(c, schema); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", schema, got, want)
		}
	}
	for i, w := range scopeWords {
		if s, ok := push.ParseSessionScope(w); !ok || int(s) != i {
			t.Errorf("the word %s stands at %d, its number is %d", w, i, s)
		}
	}
	for i, w := range excessWords {
		if e, ok := push.ParseOnExcess(w); !ok || int(e) != i {
			t.Errorf("the word %s stands at %d, its number is %d", w, i, e)
		}
	}
	for i, w := range platformWords {
		if p, ok := push.ParsePlatform(w); !ok || int(p) != i {
			t.Errorf("the word %s stands at %d, its number is %d", w, i, p)
		}
	}
}

func TestLimitFields_AreThoseOfTheContract(t *testing.T) {
	props := loadContract(t).at("components", "schemas", "LimitsPatch", "properties").(map[string]any)
	if got, want := len(limitFields), len(props); got != want {
		t.Errorf("%d limits, the contract has %d", got, want)
	}
	for _, f := range limitFields {
		p, _ := props[f.name].(map[string]any)
		if got, want := fmt.Sprintf("%v %v", p["minimum"], p["maximum"]), fmt.Sprintf("%d %d", f.least, f.most); got != want {
			t.Errorf("%s: the contract says %s, want %s", f.name, got, want)
		}
	}
}
