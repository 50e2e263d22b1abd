package center

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"carillon/server/center/strictjson"
)

func TestParsePublish_AgreesWithTheContract(t *testing.T) {
	s := loadContract(t).schema(t, "/components/schemas/PublishRequest")
	for _, c := range publishCases {
		if err := judge(s, []byte(c.body)); (err == nil) != (c.want == nil) {
			t.Errorf("%s: the contract says %v, want %v", c.name, err, c.want)
		}
	}
	rng := rand.New(rand.NewPCG(3, 1))
	valid := 0
	for range 5000 {
		body := randomPublish(rng)
		_, _, ours := parsePublish([]byte(body), testLimits(), productLimits())
		theirs := judge(s, []byte(body))
		if (ours == nil) != (theirs == nil) {
			t.Fatalf("%s\nours: %v\ncontract: %v", body, ours, theirs)
		}
		if ours == nil {
			valid++
		}
	}
	if valid < 500 || valid > 4500 {
		t.Errorf("%d of 5000 generated requests are valid: they prove little", valid)
	}
}

// chooser builds requests of which each part is wrong now and then.
type chooser struct{ *rand.Rand }

func (c chooser) oneIn(n int) bool { return c.IntN(n) == 0 }

func (c chooser) of(words ...string) string { return words[c.IntN(len(words))] }

func (c chooser) text() string {
	if c.oneIn(12) {
		return c.of(`5`, `null`, `""`, `"a\u0000b"`, `"a\u007f"`, `[]`, `{}`, `true`, `"`+strings.Repeat("é", 70)+`"`, `"`+strings.Repeat("x", 200)+`"`)
	}
	return c.of(`"alice"`, `"bob"`, `"cathy"`, `"u\u00e9"`, `"ü"`, `" "`, `"`+strings.Repeat("x", 128)+`"`, fmt.Sprintf(`"u%d"`, c.IntN(1000)))
}

// object joins members; now and then one is unknown.
func (c chooser) object(members ...string) string {
	members = slices.DeleteFunc(members, func(m string) bool { return m == "" })
	if c.oneIn(25) {
		members = append(members, `"extra":1`)
	}
	c.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return "{" + strings.Join(members, c.of(",", " ,\n")) + "}"
}

// member returns a member with a chance of one in n, otherwise nothing.
func (c chooser) member(n int, name string, value func() string) string {
	if !c.oneIn(n) {
		return ""
	}
	return `"` + name + `":` + value()
}

func (c chooser) items(item func() string) string {
	if c.oneIn(20) {
		return c.of(`[]`, `{}`, `null`, `"alice"`)
	}
	items := make([]string, 1+c.IntN(3))
	for i := range items {
		items[i] = item()
	}
	return "[" + strings.Join(items, ",") + "]"
}

func (c chooser) audience() string {
	device := func() string {
		return c.object(`"user":`+c.text(), c.member(1+c.IntN(20)/19, "device", c.text))
	}
	kinds := []string{
		`"users":` + c.items(c.text), `"devices":` + c.items(device), `"everyone":` + c.of(`true`, `true`, `true`, `false`, `1`),
		`"tags":` + c.expression(1+c.IntN(3)),
	}
	c.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	n := 1
	if c.oneIn(20) {
		n = c.IntN(len(kinds) + 1)
	}
	platforms := func() string {
		return c.items(func() string {
			return c.of(`"web"`, `"ios"`, `"tv"`, `"android"`, `"desktop"`, `"other"`, `"web"`, `"Web"`, `5`)
		})
	}
	classes := func() string {
		return c.items(func() string { return c.of(`"mobile"`, `"a-b_9"`, `"c"`, `"x"`, `"Mobile"`, `""`) })
	}
	return c.object(append(kinds[:n:n], c.member(6, "platforms", platforms), c.member(6, "classes", classes))...)
}

// expression returns one over tags, of up to so many levels and now and then more.
func (c chooser) expression(deep int) string {
	if c.oneIn(40) {
		return c.of(`{}`, `[]`, `"vip"`, levels(8), levels(9), `{"any":`+list(16, `"t%d"`)+`}`, `{"any":`+list(17, `"t%d"`)+`}`)
	}
	term := func() string {
		if deep > 1 && c.oneIn(3) {
			return c.expression(deep - 1)
		}
		return c.text()
	}
	terms := func() string { return c.items(term) }
	members := []string{c.member(2, "all", terms), c.member(2, "any", terms), c.member(3, "not", terms)}
	if strings.Join(members, "") == "" {
		members[c.IntN(3)] = `"all":` + terms()
	}
	return c.object(members...)
}

func (c chooser) value() string {
	return c.of(`1`, `null`, `"x"`, `{"a":[1,2,{"b":-0.5e3}]}`, `[ ]`, `false`, `{"a":1,"a":2}`, `"\ud83d\ude00"`)
}

func (c chooser) message() string {
	bodies := []string{`"body":` + c.value(), `"body_base64":` + c.of(`""`, `"AAE="`, `"AA=="`, `"AAAA"`)}
	if c.oneIn(20) {
		bodies[1] = `"body_base64":` + c.of(`"AAE"`, `"AAF="`, `"A-=="`, `5`, `"AA=\n="`)
	}
	if k := c.IntN(20); k < 18 {
		bodies = bodies[k%2 : k%2+1]
	} else if k == 18 {
		bodies = nil
	}
	hs := func() string {
		return c.of(`{}`, `{"a":"b"}`, headers(3), headers(16), headers(17), `{"":"x"}`, `{"a":5}`, `{"a":"`+strings.Repeat("x", 4096)+`"}`, `[]`,
			`{"a":"`+strings.Repeat("x", 2000)+`","b":"`+strings.Repeat("x", 2000)+`"}`, `{"a\n":"x"}`)
	}
	ttl := func() string {
		return c.of(`1`, `60`, `604800`, `6e1`, `60.0`, `604801`, `0`, `-1`, `1.5`, `"60"`, `null`, `1e300`)
	}
	return c.object(append(bodies,
		c.member(3, "persistent", func() string { return c.of(`true`, `true`, `true`, `false`, `null`) }),
		c.member(6, "ttl_seconds", ttl), c.member(6, "collapse_key", c.text), c.member(8, "headers", hs), c.member(4, "ref", c.text),
	)...)
}

func randomPublish(rng *rand.Rand) string {
	c := chooser{rng}
	return c.object(`"to":`+c.audience(), `"message":`+c.message(), c.member(5, "validate_only", func() string { return c.of(`true`, `false`, `false`, `0`) }))
}

func TestParseBatch_AgreesWithTheContract(t *testing.T) {
	whole := loadContract(t).schema(t, "/components/schemas/BatchRequest")
	item := loadContract(t).schema(t, "/components/schemas/BatchItem")
	rng := rand.New(rand.NewPCG(5, 1))
	c := chooser{rng}
	for range 1500 {
		parts := make([]string, 1+rng.IntN(4))
		for i := range parts {
			key := func() string {
				return c.of(`"k"`, `"k 2"`, `""`, `"é"`, `"`+strings.Repeat("k", 255)+`"`, `"`+strings.Repeat("k", 256)+`"`, `7`)
			}
			parts[i] = c.object(`"to":`+c.audience(), `"message":`+c.message(), c.member(3, "idempotency_key", key))
		}
		body := c.object(`"messages":[`+strings.Join(parts, ",")+`]`, c.member(5, "validate_only", func() string { return c.of(`true`, `false`, `0`) }))
		items, _, err := parseBatch([]byte(body), testLimits(), productLimits())
		ours := err == nil && !slices.ContainsFunc(items, func(i batchItem) bool { return i.err != nil })
		if theirs := judge(whole, []byte(body)); ours != (theirs == nil) {
			t.Fatalf("%s\nours: %v %v\ncontract: %v", body, err, items, theirs)
		}
		if err != nil {
			continue
		}
		for i, it := range items {
			if theirs := judge(item, []byte(parts[i])); (it.err == nil) != (theirs == nil) {
				t.Fatalf("%s\nours: %v\ncontract: %v", parts[i], it.err, theirs)
			}
		}
	}
}

func (c chooser) moment() string {
	return c.of(`"2030-01-01T00:00:00Z"`, `"2030-01-01T00:00:00.5+02:00"`, `"2030-06-01T00:00:00Z"`, `5`, `null`, `{}`)
}

func (c chooser) task() string {
	to := c.audience()
	if c.oneIn(3) {
		to = c.object(`"list":`+c.of(`"7345881023471616"`, `"1"`, `"x"`, `""`, `7`), c.member(6, "platforms", func() string { return c.of(`["web"]`, `[]`, `["Web"]`) }),
			c.member(12, "users", func() string { return `["alice"]` }))
	}
	pace := func() string {
		return c.object(c.member(2, "per_second", func() string { return c.of(`1`, `0.01`, `1e6`, `0.5`, `0`, `0.001`, `1000001`, `"1"`, `null`) }),
			c.member(2, "over_seconds", func() string { return c.of(`1`, `60`, `2592000`, `2592001`, `0`, `1.5`, `60.0`, `null`) }))
	}
	flag := func() string { return c.of(`true`, `false`, `false`, `1`, `null`) }
	return c.object(`"to":`+to, `"message":`+c.message(),
		c.member(6, "name", func() string {
			return c.of(`"sale"`, `""`, `"`+strings.Repeat("x", 200)+`"`, `"`+strings.Repeat("x", 201)+`"`, `5`)
		}),
		c.member(6, "template", func() string { return c.of(`false`, `false`, `0`, `null`) }), // what a template asks for beyond the schema is tested apart
		c.member(5, "test_group", func() string { return c.items(c.text) }),
		c.member(4, "pace", pace), c.member(8, "start", c.moment), c.member(8, "deadline", c.moment),
		c.member(5, "cron", func() string {
			return c.of(`"0 9 * * 1-5"`, `"@daily"`, `""`, `5`, `"`+strings.Repeat("1,", 60)+`1 * * * *"`)
		}),
		c.member(8, "time_zone", func() string { return c.of(`"Europe/Berlin"`, `"UTC"`, `""`, `5`) }),
		c.member(8, "draft", flag), c.member(8, "validate_only", flag),
	)
}

// beyondSchema are mistakes of a task that no schema says: that a moment comes after another, and that what is not persistent goes to everyone at once.
func beyondSchema(err error) bool {
	var bad *invalid
	if !errors.As(err, &bad) {
		return false
	}
	return !slices.ContainsFunc(bad.fields, func(e strictjson.FieldError) bool {
		return e.Pointer != "/pace" && e.Pointer != "/deadline" || e.Code != strictjson.NotAllowed && e.Code != strictjson.TooSmall
	})
}

func TestParseTask_AgreesWithTheContract(t *testing.T) {
	s := loadContract(t).schema(t, "/components/schemas/TaskCreate")
	rng := rand.New(rand.NewPCG(7, 1))
	valid := 0
	for range 8000 {
		body := chooser{rng}.task()
		_, ours := parseTask([]byte(body), testLimits(), productLimits())
		theirs := judge(s, []byte(body))
		if beyondSchema(ours) {
			ours = nil
		}
		if (ours == nil) != (theirs == nil) {
			t.Fatalf("%s\nours: %v\ncontract: %v", body, ours, theirs)
		}
		if ours == nil {
			valid++
		}
	}
	if valid < 500 || valid > 7500 {
		t.Errorf("%d of 8000 generated tasks are valid: they prove little", valid)
	}
}
