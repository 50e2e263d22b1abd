package redisdb

func flatOf(w *Write) []string {
	if len(w.If) != 1 || !w.If[0].Hash || w.If[0].Len || len(w.Do) != 4 || w.Do[3].log == nil || w.Under == 0 ||
		w.Do[0].Name != "HSET" || w.Do[1].Name != "RPUSH" || w.Do[2].Name != "HSET" || len(w.Do[0].Args) != 2 || len(w.Do[1].Args) != 1 || len(w.Do[2].Args) != 2 || w.Frees {
		return nil
	}
	text := func(a any) string {
		switch v := a.(type) {
		case []byte:
			return string(v)
		case *[]byte:
			return string(*v)
		case string:
			return v
		case *string:
			return *v
		}
		panic("x")
	}
	was := w.If[0].Value
	if w.If[0].Absent {
		was = ""
	}
	l := w.Do[3].log
	return []string{
		w.Do[0].Key, w.Do[1].Key, w.Do[2].Key, w.Do[3].Key, l.log,
		string(appendLineage(nil, w.Under)), w.If[0].Field, was, text(w.Do[0].Args[1]), text(w.Do[1].Args[0]), text(w.Do[2].Args[0]), text(w.Do[2].Args[1]), string(l.user), l.change,
	}
}
